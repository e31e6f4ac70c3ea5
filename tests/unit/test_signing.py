"""The signature of a webhook, checked against an independent library."""

import base64
import json
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from config.settings import webhook_secret_fault
from worker.ids import new_id
from worker.signing import make_secret, sign, webhook_headers
from worker.signing_secrets import FINGERPRINT_DIGITS, fingerprint, signed_otherwise

keys = st.binary(min_size=24, max_size=64)
texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner),
    max_leaves=10,
)


def secret_of(key: bytes) -> str:
    """Write a key as a secret."""
    return "whsec_" + base64.b64encode(key).decode()


@pytest.fixture(params=["UTC", "Asia/Tokyo", "America/St_Johns", "Europe/Istanbul", "Pacific/Kiritimati"])
def _zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@given(value=json_values, signing=st.lists(keys, min_size=1, max_size=5))
def test_each_secret_verifies_any_body_alone(value: object, signing: list[bytes]) -> None:
    """Whatever the body, a receiver needs any one of the secrets, and gets back what was sent."""
    body = json.dumps(value, ensure_ascii=False).encode()
    headers = dict(webhook_headers([secret_of(key) for key in signing], "evt_1", int(time.time()), body))
    for key in signing:
        assert Webhook(secret_of(key)).verify(body, headers) == value


@given(body=texts, key=keys)
def test_bytes_are_signed_as_they_are(body: str, key: bytes) -> None:
    """Line ends, blanks and letters of any script count as they are sent."""
    headers = dict(webhook_headers([secret_of(key)], "evt_1", int(time.time()), body.encode()))
    Webhook(secret_of(key)).verify(body.encode(), headers, json_parse=False)


@pytest.mark.usefixtures("_zone")
def test_the_zone_does_not_matter() -> None:
    """A receiver verifies what was signed wherever our clock on the wall stands, and the time is in whole seconds."""
    secret, body, now_s = make_secret(), '{"prompt":"Ağaç, 灯台"}'.encode(), int(time.time())
    headers = dict(webhook_headers([secret], "evt_1", now_s, body))
    assert headers["webhook-timestamp"] == str(now_s)
    assert Webhook(secret).verify(body, headers) == {"prompt": "Ağaç, 灯台"}


@pytest.mark.usefixtures("_zone")
def test_the_published_example_is_signed_as_published() -> None:
    """Secret, id, time and body of the specification's libraries give their signature."""
    secret, message_id = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"
    signature = sign(secret, message_id, 1_614_265_330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_there_is_a_signature_for_each_secret() -> None:
    """They stand in the order of the secrets, a space between, and each is the one the secret gives alone."""
    secrets = [make_secret() for _ in range(3)]
    headers = dict(webhook_headers(secrets, "evt_1", 1_800_000_000, b"{}"))
    alone = [dict(webhook_headers([secret], "evt_1", 1_800_000_000, b"{}")) for secret in secrets]
    assert headers["webhook-signature"] == " ".join(each["webhook-signature"] for each in alone)
    assert set(headers) == {"webhook-id", "webhook-timestamp", "webhook-signature"}


def test_changed_headers_do_not_verify() -> None:
    """Id and time are signed with the body."""
    secret, now_s = make_secret(), int(time.time())
    headers = dict(webhook_headers([secret], "evt_1", now_s, b"{}"))
    for change in ({"webhook-id": "evt_2"}, {"webhook-timestamp": str(now_s - 1)}, {"webhook-signature": "v1,AAAA"}):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(b"{}", headers | change)


def test_a_changed_body_or_another_secret_does_not_verify() -> None:
    """One byte is enough."""
    secret = make_secret()
    headers = dict(webhook_headers([secret], "evt_1", int(time.time()), b'{"a":1}'))
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(b'{"a":2}', headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(make_secret()).verify(b'{"a":1}', headers)


def test_the_id_cannot_be_taken_for_the_rest() -> None:
    """The parts that are signed are joined by dots: the id, which comes first, has none."""
    assert all("." not in new_id("evt_") for _ in range(100))


def test_a_fresh_secret_is_of_the_documented_form() -> None:
    """whsec_ and base64 of 24-64 bytes, never the same twice."""
    secret = make_secret()
    assert webhook_secret_fault(secret) is None
    assert secret != make_secret()


def test_who_signs_otherwise() -> None:
    """A worker counts by its newest secret; one that tells nothing, or nothing that can be read, is not known to."""
    [old, new, other] = [make_secret() for _ in range(3)]
    prints = [fingerprint(new), fingerprint(old)]
    assert len(prints[0]) == FINGERPRINT_DIGITS
    assert not signed_otherwise([{"signs_with": prints}, {}, {"signs_with": None}], [new], is_set_here=True)
    assert signed_otherwise([{"signs_with": prints}], [old], is_set_here=True)
    assert not signed_otherwise([{"signs_with": prints[1:]}], [new, old], is_set_here=True)
    assert signed_otherwise([{"signs_with": prints}, {"signs_with": [fingerprint(other)]}], [new], is_set_here=False)
    assert not signed_otherwise([{"signs_with": []}, {"signs_with": "rubbish"}], [new], is_set_here=False)
