"""Clients that keep books while the service under them is killed again and again."""
