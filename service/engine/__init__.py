"""Where the work runs: the Engine interface, its messages, and its homes."""
