"""One visit to a machine: its parts, their processes, and what is written of them."""
