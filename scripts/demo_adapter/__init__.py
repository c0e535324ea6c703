"""Train the adapter of the bundled demo model."""
