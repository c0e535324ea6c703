"""A self-hosted Stable Diffusion REST service whose GPU works in denoising steps."""

__version__ = "0.1.0"
