"""A Dockerfile carried out without a container engine."""
