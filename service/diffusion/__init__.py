"""What the work is: torch and diffusers. Knows no asyncio and no HTTP."""
