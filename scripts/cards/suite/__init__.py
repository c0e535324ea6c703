"""The benchmark of one GPU: its parts, their processes, and what is written of them."""
