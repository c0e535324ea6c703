"""Bodies that bring images: received, read, and checked off the event loop."""
