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
other is the key itself.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence


def signed(keys: Sequence[bytes], delivery_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of one attempt; without keys it goes unsigned."""
    headers = {"Webhook-Id": delivery_id, "Webhook-Timestamp": str(timestamp)}
    if keys:
        headers["Webhook-Signature"] = " ".join(
            f"v1,{signature(one, delivery_id, str(timestamp), body)}" for one in keys
        )
    return headers


def signature(secret_key: bytes, delivery_id: str, timestamp: str, body: bytes) -> str:
    """Return what stands after ``v1,``."""
    message = b".".join((delivery_id.encode(), timestamp.encode(), body))
    return base64.b64encode(hmac.digest(secret_key, message, hashlib.sha256)).decode("ascii")
