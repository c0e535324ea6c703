"""Images of finished jobs."""
