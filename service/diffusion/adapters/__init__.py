"""Adapters (LoRA) that change single rows of a call of the model, and nothing of its weights."""
