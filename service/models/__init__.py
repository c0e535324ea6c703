"""Models on disk and on the hub: which there are, what they are, their files; no torch."""
