"""Plain values that every part passes around."""
