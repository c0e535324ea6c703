"""From the queue to an engine."""
