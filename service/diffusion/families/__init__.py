"""Adapters of model families: all that differs between them lies behind ``Family``."""
