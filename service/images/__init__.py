"""Images as files and as answers."""
