"""VAEs that stand in for those of models."""
