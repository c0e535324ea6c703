"""The key that a webhook secret stands for."""

import base64
import binascii
from typing import Final

PREFIX: Final = "whsec_"

SHORTEST_KEY: Final = 16
"""Bytes; a guessed key would let anybody sign. 24 and more are usual."""


def webhook_key(secret: str) -> bytes:
    """Return the key that a secret stands for.

    Raises:
        ValueError: it is too short, or no base64 where it says so.

    """
    if secret.startswith(PREFIX):
        try:
            value = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error as error:
            raise ValueError(f"What follows {PREFIX} must be base64.") from error
    else:
        value = secret.encode()
    if len(value) < SHORTEST_KEY:
        raise ValueError(
            f"A webhook secret needs {SHORTEST_KEY} bytes or more; make one with"
            " `openssl rand -hex 24`."
        )
    return value
