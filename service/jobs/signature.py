"""How a receiver knows that a webhook is ours, whole and fresh.

The scheme is that of Standard Webhooks (standardwebhooks.com), whose libraries check it in
most languages. Every delivery has three headers:

- ``Webhook-Id``: the same in every attempt at one delivery. A receiver that keeps the ids it
  has seen can drop what comes twice, which may happen whenever our answer got lost.
- ``Webhook-Timestamp``: when this attempt was made, in seconds since 1970. A receiver refuses
  what is older than some minutes, so that nobody can play an old delivery again.
- ``Webhook-Signature``: ``v1,`` and the base64 of HMAC-SHA256 over ``id.timestamp.body``, the
  body as the bytes that came. While a secret is being changed there is one signature for
  each, with a space between; one that fits is enough.

A secret that begins with ``whsec_`` is the base64 of the key, as those libraries want it; any
other is the key itself. ``verify`` is the receiver's side, for tests and as an example.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

PREFIX: Final = "whsec_"

SHORTEST_KEY: Final = 16
"""Bytes; a guessed key would let anybody sign. 24 and more are usual."""

FRESH_SECONDS: Final = 300.0


def key(secret: str) -> bytes:
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


def signed(keys: Sequence[bytes], delivery_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of one attempt; without keys it goes unsigned."""
    headers = {"Webhook-Id": delivery_id, "Webhook-Timestamp": str(timestamp)}
    if keys:
        headers["Webhook-Signature"] = " ".join(
            f"v1,{_signature(one, delivery_id, str(timestamp), body)}" for one in keys
        )
    return headers


def verify(secret_key: bytes, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Return whether a delivery is from somebody who has the key, and fresh."""
    delivery_id, timestamp = headers.get("Webhook-Id", ""), headers.get("Webhook-Timestamp", "")
    if not timestamp.isascii() or not timestamp.isdigit():
        return False
    if abs(now - int(timestamp)) > FRESH_SECONDS:
        return False
    wanted = f"v1,{_signature(secret_key, delivery_id, timestamp, body)}".encode()
    found = headers.get("Webhook-Signature", "").encode().split(b" ")
    return any(hmac.compare_digest(wanted, one) for one in found)


def _signature(secret_key: bytes, delivery_id: str, timestamp: str, body: bytes) -> str:
    message = b".".join((delivery_id.encode(), timestamp.encode(), body))
    return base64.b64encode(hmac.digest(secret_key, message, hashlib.sha256)).decode("ascii")
