"""Starts of a row: from noise, and from an image."""
