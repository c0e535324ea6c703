"""Several models in one engine: loaded while others draw, parked, and evicted."""
