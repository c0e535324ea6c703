"""Requests of each mode: from text, from an image, of a part of an image, and in two passes."""
