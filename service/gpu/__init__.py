"""What the driver and the installed torch say about GPUs."""
