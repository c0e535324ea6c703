"""Middlewares: steps of every request, in the order of ``stack``."""
