"""A Ray cluster to try, on this machine."""
