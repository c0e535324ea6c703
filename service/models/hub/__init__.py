"""Models fetched from the hub."""
