"""The page's receivers, as they stand there, take what is genuine once and nothing else: one table for all."""

import asyncio
import base64
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from consumer import LANGUAGES, Consumer, Headers
from harness import Sandbox, eventually
from product import Api, Place

from worker.signing import make_secret, sign, webhook_headers

STRANGER = make_secret()
REFUSED = {400, 401}
_numbers = count(1)


@dataclass(frozen=True)
class Delivery:
    """A delivery as the worker makes it, signed with ``secrets`` at ``sent_at_s``, and what was done to it since."""

    secrets: Sequence[str]
    id: str
    sent_at_s: int
    body: bytes
    swapped: tuple[tuple[str, str | bytes | None], ...] = ()
    sent_body: bytes | None = None

    def with_header(self, name: str, value: str | bytes | None) -> "Delivery":
        """Have a header say something else, or leave it out."""
        return replace(self, swapped=(*self.swapped, (name, value)))

    def headers(self) -> Headers:
        """Give its headers."""
        headers = dict(webhook_headers(self.secrets, self.id, self.sent_at_s, self.body)) | dict(self.swapped)
        return [("content-type", "application/json"), *((n, v) for n, v in headers.items() if v is not None)]

    def to(self, consumer: Consumer) -> int:
        """Send it; return the answer's status."""
        return consumer.post(self.headers(), self.body if self.sent_body is None else self.sent_body)

    @property
    def line(self) -> str:
        """What a receiver prints that handles it."""
        return f"job.completed {json.loads(self.body)['data']['id']}"


def delivery(*secrets: str) -> Delivery:
    """Make a genuine delivery of a fresh event, with more in it than ASCII."""
    number = next(_numbers)
    data = {"id": f"order-{number}", "metadata": {"customer": "Müller & Söhne, İstanbul 🗼"}}
    body = json.dumps({"type": "job.completed", "sequence": number, "data": data}, ensure_ascii=False).encode()
    return Delivery(secrets, f"evt_{number:032x}", int(time.time()), body)


def resigned(given: Delivery, age_s: int) -> Delivery:
    """Sign it again as if it had been sent some seconds ago."""
    return replace(given, sent_at_s=int(time.time()) - age_s)


def good_signature(given: Delivery) -> str:
    """Sign it with its first secret."""
    return sign(given.secrets[0], given.id, given.sent_at_s, given.body)


Change = Callable[[Delivery], Delivery]

GENUINE: dict[str, Change] = {
    "as it is": lambda d: d,
    "four minutes old": lambda d: resigned(d, 240),
    "from a clock four minutes ahead": lambda d: resigned(d, -240),
    "also signed by another secret": lambda d: replace(d, secrets=(*d.secrets, STRANGER)),
    "signed by another secret first": lambda d: replace(d, secrets=(STRANGER, *d.secrets)),
    "by six secrets": lambda d: replace(d, secrets=(*(make_secret() for _ in range(5)), *d.secrets)),
    "with a signature of a later version": lambda d: d.with_header("webhook-signature", f"v2,abc {good_signature(d)}"),
    "with rubbish beside the signature": lambda d: d.with_header("webhook-signature", f"v1,!! {good_signature(d)} ,"),
}

FORGED: dict[str, Change] = {
    "another secret": lambda d: replace(d, secrets=(STRANGER,)),
    "two other secrets": lambda d: replace(d, secrets=(STRANGER, make_secret())),
    "no secret": lambda d: replace(d, secrets=()),
    "a changed body": lambda d: replace(d, sent_body=d.body.replace(b"order", b"oRder")),
    "a space after the body": lambda d: replace(d, sent_body=d.body + b" "),
    "no body": lambda d: replace(d, sent_body=b""),
    "a body of 3 MB": lambda d: replace(d, sent_body=d.body + b" " * 3_000_000),
    "the id of another event": lambda d: d.with_header("webhook-id", "evt_other"),
    "six minutes old": lambda d: resigned(d, 360),
    "six minutes ahead": lambda d: resigned(d, -360),
    "of 1970": lambda d: replace(d, sent_at_s=0),
    "old, with a fresh timestamp": lambda d: resigned(d, 3600).with_header("webhook-timestamp", str(int(time.time()))),
    "no id": lambda d: d.with_header("webhook-id", None),
    "no timestamp": lambda d: d.with_header("webhook-timestamp", None),
    "no signature": lambda d: d.with_header("webhook-signature", None),
    "no header of ours": lambda d: replace(
        d, swapped=tuple((name, None) for name in ("webhook-id", "webhook-timestamp", "webhook-signature"))
    ),
    "an empty signature": lambda d: d.with_header("webhook-signature", ""),
    "only a version": lambda d: d.with_header("webhook-signature", "v1,"),
    "a signature of another version": lambda d: d.with_header("webhook-signature", "v2" + good_signature(d)[2:]),
    "a signature without a version": lambda d: d.with_header("webhook-signature", good_signature(d)[3:]),
    "half a signature": lambda d: d.with_header("webhook-signature", good_signature(d)[:20]),
    "garbage for base64": lambda d: d.with_header("webhook-signature", "v1,=%&not base64!?=="),
    "a signature beyond ASCII": lambda d: d.with_header("webhook-signature", "v1,üñ€".encode()),
    "1,000 signatures": lambda d: d.with_header("webhook-signature", " ".join(["v1,A="] * 1000)),
    "a timestamp in words": lambda d: d.with_header("webhook-timestamp", "soon"),
    "a timestamp that is no number": lambda d: d.with_header("webhook-timestamp", "nan"),
    "a timestamp without end": lambda d: d.with_header("webhook-timestamp", "9" * 5000),
    "a timestamp below zero": lambda d: d.with_header("webhook-timestamp", "-9223372036854775808"),
}


@pytest.mark.parametrize("change", GENUINE.values(), ids=GENUINE.keys())
def test_a_genuine_delivery_is_taken_once(consumer: Consumer, secrets: tuple[str, str], change: Change) -> None:
    """It is handled as it first comes; a repeat, with a timestamp and a signature of its own, is taken and no more."""
    sent = change(delivery(secrets[0]))
    assert sent.to(consumer) == 204
    assert resigned(delivery(secrets[0]), 0).to(consumer) == 204
    assert replace(sent, swapped=(), sent_at_s=int(time.time()) - 5).to(consumer) == 204
    assert consumer.handled().count(sent.line) == 1


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED.keys())
def test_nothing_else_is_taken(consumer: Consumer, secrets: tuple[str, str], change: Change) -> None:
    """It is refused and leaves no trace: the genuine event of that id is handled afterwards."""
    genuine = delivery(secrets[0])
    try:
        assert change(genuine).to(consumer) in REFUSED
    except httpx.TransportError:  # a body too large may meet a closed door
        assert change is FORGED["a body of 3 MB"]
    assert genuine.line not in consumer.handled()
    assert genuine.to(consumer) == 204
    assert consumer.handled().count(genuine.line) == 1


def test_repeats_at_the_same_time_are_handled_once(consumer: Consumer, secrets: tuple[str, str]) -> None:
    """Twenty at once make one."""
    sent = delivery(secrets[0])
    with ThreadPoolExecutor(20) as many:
        assert list(many.map(sent.to, [consumer] * 20)) == [204] * 20
    assert consumer.handled().count(sent.line) == 1


def test_while_rotating_either_secret_does(pair: tuple[Consumer, Consumer], secrets: tuple[str, str]) -> None:
    """With both signatures a delivery is taken by whoever has one of the secrets, with one by its holder only."""
    new, old = pair
    both = delivery(*secrets)
    assert [both.to(new), both.to(old)] == [204, 204]
    later = delivery(secrets[0])
    assert later.to(new) == 204
    assert later.to(old) in REFUSED
    assert both.line in old.handled()
    assert later.line not in old.handled()


def test_a_delivery_that_breaks_off_does_no_harm(consumer: Consumer, secrets: tuple[str, str]) -> None:
    """Half a body and a closed connection handle nothing and end nothing."""
    sent = delivery(secrets[0])
    head = [
        f"{name}: {value!s}" for name, value in [*sent.headers(), ("content-length", len(sent.body)), ("host", "x")]
    ]
    with socket.create_connection(("127.0.0.1", consumer.port)) as line:
        line.sendall("\r\n".join(["POST / HTTP/1.1", *head, "", ""]).encode() + sent.body[:20])
    assert delivery(secrets[0]).to(consumer) == 204
    assert consumer.process.poll() is None
    assert sent.line not in consumer.handled()


def _none(secret: str) -> dict[str, str]:
    """Make of a good secret what is none, by how it came about."""
    coded = secret.removeprefix("whsec_")
    return {
        "empty": "",
        "nothing behind the prefix": "whsec_",
        "in double quotes": f'"{secret}"',
        "in single quotes": f"'{secret}'",
        "half in quotes": f'{secret}"',
        "a public key's prefix": f"whpk_{coded}",
        "another case": f"WHSEC_{coded}",
        "without the prefix": coded,
        "with the prefix twice": f"whsec_{secret}",
        "of 16 bytes": f"whsec_{base64.b64encode(bytes(16)).decode()}",
        "of 23 bytes": f"whsec_{base64.b64encode(bytes(23)).decode()}",
        "of 67 bytes": f"whsec_{base64.b64encode(bytes(67)).decode()}",
        "unpadded": secret.rstrip("="),
        "cut off": secret[:-3],
        "URL-safe": f"whsec_{base64.urlsafe_b64encode(bytes([255]) * 32).decode()}",
        "no base64": f"whsec_{'!' * 44}",
        "padded in the middle": f"{secret}{coded}",
        "two of them": f"{secret} {secret}",
        "a space before": f" {secret}",
        "a line end behind": f"{secret}\n",
        "as a log shows it": "whsec_[redacted]",
    }


NO_SECRETS = _none(make_secret())


@pytest.mark.parametrize("secret", NO_SECRETS.values(), ids=NO_SECRETS.keys())
def test_without_a_whole_secret_it_does_not_start(command: list[str], secret: str, tmp_path: Path) -> None:
    """It says so in one line: an empty key would take what anybody signs with one, half a key nothing at all."""
    consumer = Consumer(command, secret, tmp_path)
    try:
        assert consumer.process.wait(20) == 1
        assert consumer.said.count("\n") == 1
        assert "WEBHOOK_SECRET is not one whole whsec_ secret" in consumer.said
        assert len(secret) < 20 or secret not in consumer.said
    finally:
        consumer.close()


@pytest.mark.parametrize("size", range(24, 65, 8))
def test_a_whole_secret_is_one_of_24_to_64_bytes(command: list[str], size: int, tmp_path: Path) -> None:
    """Each padding is taken, and the key is all of it."""
    secret = f"whsec_{base64.b64encode(os.urandom(size)).decode()}"
    consumer = Consumer(command, secret, tmp_path)
    try:
        consumer.await_listening()
        assert delivery(secret).to(consumer) == 204
    finally:
        consumer.close()


@pytest.fixture
async def api(tmp_path: Path, secrets: tuple[str, str]) -> AsyncIterator[Api]:
    """Run the sandbox and ``up`` with two secrets, and talk to it."""
    place = Place(tmp_path, {"WEBHOOK_SECRET": " ".join(secrets)})
    try:
        sandbox = await place.start("sandbox", "--port", "0", "--faults", "none", "--speed", "100")
        place.environ["ONYSOFT_BASE_URL"] = Sandbox(await sandbox.address()).url
        api = Api(await (await place.started("up")).address())
        yield api
        await api.http.aclose()
    finally:
        await place.close()


async def test_a_real_workers_deliveries_are_taken_once(api: Api, pair: tuple[Consumer, Consumer]) -> None:
    """A job's end comes to whoever has either secret; sent again on request it is taken, and not handled again."""

    async def delivered(job_id: str, times: int) -> dict[str, Any] | None:
        (sent,) = (await api.http.get(f"/v1/jobs/{job_id}/deliveries")).json()["deliveries"] or [{"state": None}]
        done = sent["state"] == "delivered" and [attempt["status"] for attempt in sent["attempts"]] == [204] * times
        return sent if done else None

    async def told_twice(consumer: Consumer, job_id: str) -> None:
        await api.submit(job_id, kind="image", input={"prompt": "ein Leuchtturm, İstanbul"}, webhook_url=consumer.url)
        sent = await eventually(lambda: delivered(job_id, 1))
        (await api.http.post(f"/v1/deliveries/{sent['id']}/replay")).raise_for_status()
        await eventually(lambda: delivered(job_id, 2))
        assert consumer.handled().count(f"job.completed {job_id}") == 1

    await asyncio.gather(told_twice(pair[0], "new-lighthouse"), told_twice(pair[1], "old-lighthouse"))


def test_the_languages_asked_for_are_those_of_the_page() -> None:
    """A misspelt language is no empty run."""
    assert LANGUAGES
    assert set(LANGUAGES) <= {"python", "node", "go"}
