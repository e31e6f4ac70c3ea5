"""Owns the secrets webhooks are signed with: those of the environment, else the deployment's own, and their rotation.

Theory. Redis keeps one current secret, made once, and those before it with the time until which each signs on. A
webhook carries a signature by each that is valid, so that a receiver may change from one to the next at any moment of
that time. A rotation takes no secret away early, therefore a process that learns of it a moment late signs with what
every receiver still takes: workers read the secrets again after ``FRESH_S``, and not at every delivery.

What a process signs with is its own environment's to say, so a worker tells fingerprints of it with each heartbeat:
whoever prints a secret, or checks one, learns from them that the workers have another.

Every secret that is learned here is hidden from the logs.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from config.log import hide
from config.settings import webhook_secret_fault
from jobs.job import UnreadableRecord
from worker.claims import clock_s
from worker.keys import Keys
from worker.link import Link, unreadable
from worker.record import number, rfc3339
from worker.signing import make_secret

SIGNS_ON_MS = 86_400_000  # for how long the secret before a rotation is valid
MOST_VALID = 5  # a signature each: the header stays short
FRESH_S = 2.0
FINGERPRINT_DIGITS = 12
DIFFERS = "the workers sign with another secret: WEBHOOK_SECRET differs there"


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret in its ``whsec_`` form: the current one, or one before that signs until a time."""

    text: str = field(repr=False)
    until_ms: int | None = None

    def signs_at(self, now_ms: int) -> bool:
        """Tell whether it is valid."""
        return self.until_ms is None or now_ms < self.until_ms


class UnreadableSecret(UnreadableRecord):
    """What lies in the place of the current secret is none: nothing can be signed until it is rotated."""

    def __init__(self, key: str, why: str) -> None:
        Exception.__init__(
            self,
            f"the webhook secret in Redis ({key}) cannot be read: {why}; delete the key, or set WEBHOOK_SECRET",
        )


class TooManySecrets(Exception):  # noqa: N818 - named after what it says
    """Another rotation would make more secrets valid than there may be: one has to end first."""

    def __init__(self, until_ms: int) -> None:
        super().__init__(
            f"{MOST_VALID} webhook secrets are valid, and each was promised a day: rotate again "
            f"after {rfc3339(until_ms)}, when the oldest ends"
        )


class KeptSecrets:
    """The store's part for the deployment's own secrets. ``now_ms`` tells the time by Redis's clock."""

    def __init__(self, link: Link, keys: Keys, now_ms: Callable[[], int]) -> None:
        self._link = link
        self._current = keys.one("secret")
        self._before = keys.one("secrets-before")
        self._now_ms = now_ms

    async def kept(self) -> list[Secret]:
        """Read the valid secrets, newest first; none where none was made yet. Raise ``UnreadableSecret``."""
        # The current one first: should it be rotated in between, it is read as one before, and none is missed.
        current, before = await self._link.each(
            [("GET", self._current), ("ZREVRANGE", self._before, 0, -1, "WITHSCORES")]
        )
        if isinstance(before, Exception):
            unreadable("webhook secrets", self._before, before)
            before = []
        found = [] if current is None else [self._read_current(current)]
        for stored, score in zip(before[::2], before[1::2], strict=True):
            text, until_ms = _text(stored), number(score)
            if until_ms is None or webhook_secret_fault(text):
                unreadable("webhook secrets", self._before, "one of those before is none")
            elif all(text != secret.text for secret in found):
                found.append(Secret(text, until_ms))
        _hide(secret.text for secret in found)
        now_ms = self._now_ms()
        return [secret for secret in found if secret.signs_at(now_ms)]

    async def valid(self) -> list[Secret]:
        """Read the valid secrets, newest first; the first of all is made here."""
        found = await self.kept()
        if not any(secret.until_ms is None for secret in found):
            fresh = make_secret()
            _hide([fresh])
            await self._link.command("SET", self._current, fresh, "NX")
            found = await self.kept()
        return found

    async def rotate(self, fresh: str) -> list[Secret]:
        """Make ``fresh`` the current secret; return the valid ones, newest first. Safe to repeat.

        Raises ``TooManySecrets``, with nothing changed.
        """
        _hide([fresh])
        until_ms = await self._link.script("rotate", [self._current, self._before], [fresh, SIGNS_ON_MS, MOST_VALID])
        if until_ms:
            raise TooManySecrets(until_ms)
        return await self.kept()

    def _read_current(self, stored: object) -> Secret:
        fault = str(stored) if isinstance(stored, Exception) else webhook_secret_fault(text := _text(stored))
        if fault:
            raise UnreadableSecret(self._current, fault)
        return Secret(text)


class SigningSecrets:
    """What a process signs with: the secrets set in the environment, else the deployment's own."""

    def __init__(self, given: Sequence[str] | None, store_secrets: KeptSecrets, now_ms: Callable[[], int]) -> None:
        self._given = given
        self._store_secrets = store_secrets
        self._now_ms = now_ms
        self._known: list[Secret] = []
        self._fresh_until_s = 0.0
        self._reading = asyncio.Lock()

    async def valid(self) -> Sequence[str]:
        """Give the secrets that are valid now, newest first; raise ``RedisAway`` where they have to be read again."""
        if self._given:
            return self._given
        if clock_s() >= self._fresh_until_s:
            async with self._reading:
                if clock_s() >= self._fresh_until_s:
                    self._known = await self._store_secrets.valid()
                    self._fresh_until_s = clock_s() + FRESH_S
        now_ms = self._now_ms()
        return [secret.text for secret in self._known if secret.signs_at(now_ms)]

    async def fingerprints(self) -> list[str] | None:
        """Tell the valid secrets apart, newest first, and make none; None where what is kept cannot be read."""
        try:
            texts = self._given or [secret.text for secret in await self._store_secrets.kept()]
        except UnreadableSecret:
            return None
        return [fingerprint(text) for text in texts]


def fingerprint(text: str) -> str:
    """Give what tells a secret from others and says nothing of it."""
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_DIGITS]


def signed_otherwise(workers: Iterable[Mapping[str, Any]], ours: Iterable[str], *, is_set_here: bool) -> bool:
    """Say whether one of these workers signs with a secret that is none of ``ours``, first of all.

    One that has told nothing is not known to. One that has none yet will take the deployment's own with its first
    webhook, which is another where ours are set in the environment.
    """
    known = {fingerprint(text) for text in ours}
    told = [worker["signs_with"] for worker in workers if isinstance(worker.get("signs_with"), list)]
    return any(prints[0] not in known if prints else is_set_here for prints in told)


def _text(stored: object) -> str:
    return stored.decode("ascii", "replace") if isinstance(stored, bytes) else ""


def _hide(secrets: Iterable[str]) -> None:
    hide(secret.removeprefix("whsec_") for secret in secrets)  # the rest is what tells: it is hidden wherever it stands
