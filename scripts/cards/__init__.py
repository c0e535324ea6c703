"""Measuring what a graphics card does with a model, one process for each measurement."""
