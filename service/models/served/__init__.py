"""The models that requests can name."""
