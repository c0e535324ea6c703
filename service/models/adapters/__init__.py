"""Adapters (LoRA files): which there are, and what their headers tell; imports no torch."""
