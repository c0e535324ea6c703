"""Connections: their limits, and clients that are slow or gone."""
