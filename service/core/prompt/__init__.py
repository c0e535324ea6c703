"""The language of prompts, without a model: AUTOMATIC1111's syntax as plain values."""
