"""Texts and further inputs of the denoiser."""
