"""Images that requests bring, kept for their jobs."""
