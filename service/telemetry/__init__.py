"""What the service says of itself: metrics, logs, GPU readings."""
