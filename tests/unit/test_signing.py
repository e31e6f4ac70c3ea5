"""The signature of a webhook, checked against an independent library."""

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from worker.signing import make_secret, webhook_headers


@given(body=st.text().filter(bool), key=st.binary(min_size=24, max_size=64))
def test_an_independent_verifier_agrees(body: str, key: bytes) -> None:
    """Any body under any secret verifies elsewhere."""
    secret = "whsec_" + base64.b64encode(key).decode()
    now_s = int(datetime.now(UTC).timestamp())
    payload = b'{"x":' + base64.b64encode(body.encode("utf-8", "surrogatepass")).join([b'"', b'"']) + b"}"
    headers = dict(webhook_headers([make_secret(), secret], "evt_1", now_s, payload))
    Webhook(secret).verify(payload, headers)


def test_a_changed_body_does_not_verify() -> None:
    """One byte is enough."""
    secret = make_secret()
    headers = dict(webhook_headers([secret], "evt_1", int(datetime.now(UTC).timestamp()), b'{"a":1}'))
    with pytest.raises(Exception, match=r"(?i)signature"):
        Webhook(secret).verify(b'{"a":2}', headers)


def test_a_fresh_secret_is_of_the_documented_form() -> None:
    """whsec_ and base64 of 24-64 bytes, never the same twice."""
    secret = make_secret()
    assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64
    assert secret != make_secret()
