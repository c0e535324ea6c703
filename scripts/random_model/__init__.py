"""Models of the published shapes with random weights, for measurements without a download."""
