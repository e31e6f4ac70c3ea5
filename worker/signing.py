"""Owns the signature of a webhook. Pure: bytes and whole seconds in, header values out.

Source: the Standard Webhooks specification (id, timestamp and body joined by dots, HMAC-SHA256, base64, ``v1,``).
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

SECRET_BYTES = 32


def sign(secret: str, message_id: str, timestamp_s: int, body: bytes) -> str:
    """Sign one message with one ``whsec_`` secret."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp_s, body)
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def webhook_headers(keys: Sequence[str], message_id: str, timestamp_s: int, body: bytes) -> list[tuple[str, str]]:
    """Make the three headers of a message, with a signature for each secret that is valid now."""
    return [
        ("webhook-id", message_id),
        ("webhook-timestamp", str(timestamp_s)),
        ("webhook-signature", " ".join(sign(key, message_id, timestamp_s, body) for key in keys)),
    ]


def make_secret() -> str:
    """Make a fresh secret."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
