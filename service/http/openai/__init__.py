"""The images API of OpenAI: a translator onto the jobs of the service."""
