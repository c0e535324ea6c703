"""The edge: aiohttp and marshmallow. Never imports torch."""
