"""Engines on other machines, through Ray; only ``driver``, ``host`` and ``actor`` may import it."""
