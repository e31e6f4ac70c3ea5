"""The webhook secret: made once, rotated while workers run, and each valid one signs until its time."""

import asyncio
import json
import os
import pty
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from harness import SECRET, Bench, directed, eventually
from standardwebhooks import Webhook, WebhookVerificationError
from structlog.testing import capture_logs

from config.log import redact
from worker import link
from worker.keys import Keys
from worker.link import Link, RedisAway
from worker.signing import make_secret
from worker.signing_secrets import (
    MOST_VALID,
    SIGNS_ON_MS,
    KeptSecrets,
    SigningSecrets,
    TooManySecrets,
    UnreadableSecret,
)

CURRENT, BEFORE = "onysoft:secret", "onysoft:secrets-before"
own_secret = pytest.mark.env(WEBHOOK_SECRET="")


@dataclass
class Hook:
    """A consumer that keeps what came, headers and body, for the tests to verify; answers ``statuses``, then 200."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    came: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one delivery."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        self.came.append((headers, await reader.readexactly(int(headers["content-length"]))))
        status = self.statuses.pop(0) if self.statuses else 200
        writer.write(b"HTTP/1.1 %d x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        await writer.drain()
        writer.close()

    def verified(self, secret: str) -> list[bool]:
        """Tell of each delivery whether a receiver that knows this one secret takes it."""
        return [_verifies(secret, headers, body) for headers, body in self.came]


def _verifies(secret: str, headers: dict[str, str], body: bytes) -> bool:
    try:
        Webhook(secret).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    """Run a consumer on a free port."""
    box = Hook()
    async with await asyncio.start_server(box.take, "127.0.0.1", 0) as server:
        box.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        yield box


def texts(secrets: Any) -> list[str]:
    """Name the secrets, newest first."""
    return [secret.text for secret in secrets]


async def run(bench: Bench, *words: str, secret: str = "") -> tuple[int, str, str]:
    """Run a command as a user does; return its exit status and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "worker", *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "REDIS_URL": bench.redis_url, "WEBHOOK_SECRET": secret},
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


# --- what is kept


async def test_the_first_secret_is_made_once(bench: Bench) -> None:
    """Whoever asks first, all get the same."""
    found = await asyncio.gather(*(bench.store.secrets.valid() for _ in range(20)))
    assert len({secret.text for secrets in found for secret in secrets}) == 1
    assert await bench.raw.get(CURRENT) == found[0][0].text.encode()


async def test_looking_makes_no_secret(bench: Bench) -> None:
    """Who only looks finds none."""
    assert await bench.store.secrets.kept() == []
    assert not await bench.raw.exists(CURRENT)


async def test_a_rotation_keeps_those_before_for_a_day(bench: Bench) -> None:
    """Rotated twice, all three are valid, the newest first; each of those before until a day after it was replaced."""
    secrets = bench.store.secrets
    [first], second, third = await secrets.valid(), make_secret(), make_secret()
    from_ms = bench.store.now_ms()
    await secrets.rotate(second)
    found = await secrets.rotate(third)
    await bench.store.sync_clock()
    assert texts(found) == [third, second, first.text] == texts(await secrets.valid())
    ends = [secret.until_ms for secret in found]
    assert ends[0] is None
    assert from_ms + SIGNS_ON_MS - 50 <= (ends[2] or 0) < (ends[1] or 0) <= bench.store.now_ms() + SIGNS_ON_MS + 50
    assert 0 < await bench.raw.pttl(BEFORE) <= SIGNS_ON_MS + 1
    assert await bench.raw.pttl(CURRENT) == -1


async def test_the_first_rotation_of_all_leaves_none_before(bench: Bench) -> None:
    """Where there was no secret, the new one is the only one."""
    fresh = make_secret()
    assert texts(await bench.store.secrets.rotate(fresh)) == [fresh]


async def test_a_repeated_rotation_rotates_once(bench: Bench) -> None:
    """A call whose answer was lost is sent again, be it that another rotation came between."""
    secrets = bench.store.secrets
    [first], second, third = await secrets.valid(), make_secret(), make_secret()
    for fresh in (second, second, third, third, second):
        await secrets.rotate(fresh)
    assert texts(await secrets.valid()) == [third, second, first.text]


async def test_rotations_at_once_lose_none(bench: Bench) -> None:
    """Of twenty at once as many are done as there may be, and each of these is valid; the others change nothing."""
    [first] = await bench.store.secrets.valid()
    tried = [make_secret() for _ in range(20)]
    outcomes = await asyncio.gather(*(bench.store.secrets.rotate(fresh) for fresh in tried), return_exceptions=True)
    done = {fresh for fresh, outcome in zip(tried, outcomes, strict=True) if isinstance(outcome, list)}
    assert all(isinstance(outcome, list | TooManySecrets) for outcome in outcomes)
    found = await bench.store.secrets.valid()
    assert set(texts(found)) == done | {first.text}
    assert len(found) == MOST_VALID
    assert len({secret.until_ms for secret in found}) == MOST_VALID


async def test_too_many_are_refused_until_one_has_ended(bench: Bench) -> None:
    """None that was promised a day is dropped for a new one: the refusal says when the oldest ends."""
    secrets = bench.store.secrets
    await secrets.valid()
    for _ in range(MOST_VALID - 1):
        found = await secrets.rotate(make_secret())
    with pytest.raises(TooManySecrets, match="2") as refused:
        await secrets.rotate(make_secret())
    assert "when the oldest ends" in str(refused.value)
    assert await secrets.valid() == found
    await bench.raw.zadd(BEFORE, {found[-1].text: bench.store.now_ms() - 1})
    rotated = await secrets.rotate(make_secret())
    assert texts(rotated)[1:] == texts(found)[:-1]
    assert await bench.raw.zcard(BEFORE) == MOST_VALID - 1


async def test_a_secret_ends_at_its_time(bench: Bench) -> None:
    """It signs up to the millisecond before, by the clock handed in, be it read or remembered."""
    now_ms = 1_900_000_000_000
    clock = [now_ms]
    before, current = make_secret(), make_secret()
    await bench.raw.set(CURRENT, current)
    await bench.raw.zadd(BEFORE, {before: now_ms + 1})
    async with asyncio.timeout(10):
        own = Link(bench.redis_url)
        kept = KeptSecrets(own, Keys("onysoft"), lambda: clock[0])
        signing = SigningSecrets(None, kept, lambda: clock[0])
        assert await signing.valid() == [current, before] == texts(await kept.valid())
        clock[0] += 1
        assert await signing.valid() == [current] == texts(await kept.valid())
        await own.aclose()


async def test_what_is_set_rules(bench: Bench) -> None:
    """Where the environment gives secrets, what Redis keeps signs nothing and none is made."""
    given = (make_secret(), make_secret())
    assert await SigningSecrets(given, bench.store.secrets, bench.store.now_ms).valid() == given
    assert not await bench.raw.exists(CURRENT)


async def test_redis_away_is_told_as_such() -> None:
    """A delivery that has to read the secrets waits for Redis as all others do."""
    nowhere = Link("unix:///nonexistent/redis.sock")
    signing = SigningSecrets(None, KeptSecrets(nowhere, Keys("onysoft"), lambda: 0), lambda: 0)
    with pytest.raises(RedisAway):
        await signing.valid()
    await nowhere.aclose()


# --- what cannot be read, and what is told


@pytest.mark.parametrize("rubbish", [b"", b"\xff\xfe", b"hunter22-hunter22", b"whsec_c2hvcnQ=", None])
async def test_a_secret_that_is_none_signs_nothing(bench: Bench, rubbish: bytes | None) -> None:
    """In the current one's place it is said, with its key and without itself; nothing is written over it."""
    await (bench.raw.lpush(CURRENT, "hunter22") if rubbish is None else bench.raw.set(CURRENT, rubbish))
    stored = await bench.raw.dump(CURRENT)
    with pytest.raises(UnreadableSecret, match=CURRENT) as told:
        await bench.store.secrets.valid()
    assert "hunter22" not in str(told.value)
    assert "c2hv" not in str(told.value)
    assert await bench.raw.dump(CURRENT) == stored


async def test_rubbish_among_those_before_is_left_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others sign on, and it is told without being quoted."""
    monkeypatch.setattr(link, "_told", {})
    secrets = bench.store.secrets
    [first], second = await secrets.valid(), make_secret()
    await secrets.rotate(second)
    await bench.raw.zadd(BEFORE, {"hunter22-hunter22": bench.store.now_ms() + 1000, make_secret(): "inf"})
    with capture_logs() as logs:
        assert texts(await secrets.valid()) == [second, first.text]
    assert [line["event"] for line in logs] == ["record.unreadable"]
    assert "hunter22" not in str(logs)
    await bench.raw.delete(BEFORE)
    await bench.raw.set(BEFORE, "x")
    assert texts(await secrets.valid()) == [second]


async def test_what_is_learned_is_hidden(bench: Bench) -> None:
    """Every secret that is read, made or rotated is blotted out of logs, without its prefix as well."""
    [first], second = await bench.store.secrets.valid(), make_secret()
    third = make_secret()
    await bench.store.secrets.rotate(second)
    await bench.raw.set(CURRENT, third)
    await bench.store.secrets.valid()
    for secret in (first.text, second, third):
        assert secret not in repr(first)
        assert redact(f"a {secret} b") == "a whsec_[redacted] b"
        assert redact(f"a {secret.removeprefix('whsec_')} b") == "a [redacted] b"


# --- as workers and users meet it


@own_secret
async def test_a_running_worker_signs_with_a_rotated_secret(bench: Bench, hook: Hook) -> None:
    """Soon after a rotation each webhook verifies with the new secret alone and with the old one alone."""
    async with bench.worker():
        await bench.submit(input=directed(), webhook_url=hook.url)
        await eventually(lambda: _came(hook, 1))
        [old] = await bench.store.secrets.valid()
        assert hook.verified(old.text) == [True]
        new = json.loads((await run(bench, "webhooks", "secret", "--rotate", "--json"))[1])["secrets"][0]

        async def signed_with_both() -> bool:
            wanted = len(hook.came) + 1
            await bench.submit(input=directed(), webhook_url=hook.url)
            await eventually(lambda: _came(hook, wanted))
            assert hook.verified(old.text)[-1], "the old secret is promised a day"
            return hook.verified(new)[-1]

        await eventually(signed_with_both)
        assert len(hook.came[-1][0]["webhook-signature"].split(" ")) == 2
        await bench.raw.zadd(BEFORE, {old.text: bench.store.now_ms() - 1})

        async def signed_with_the_new_one() -> bool:
            wanted = len(hook.came) + 1
            await bench.submit(input=directed(), webhook_url=hook.url)
            await eventually(lambda: _came(hook, wanted))
            assert hook.verified(new)[-1]
            return not hook.verified(old.text)[-1]

        await eventually(signed_with_the_new_one)


async def _came(hook: Hook, number: int) -> bool:
    return len(hook.came) >= number


@pytest.mark.env(WEBHOOK_SCHEDULE_S="0,1.1,0.05")
async def test_a_retry_keeps_its_id_and_has_its_own_time(bench: Bench, hook: Hook) -> None:
    """Each attempt verifies by itself: one id without a dot, the same body, a time of its own in whole seconds."""
    hook.statuses = [500]
    async with bench.worker():
        job_id = await bench.submit(input=directed(prompt="灯台 at dusk, Ağaç"), webhook_url=hook.url)
        await bench.ended(job_id)
        await eventually(lambda: _came(hook, 2))
    (first, body), (second, again) = hook.came
    assert (body, first["webhook-id"]) == (again, second["webhook-id"])
    assert "." not in first["webhook-id"]
    assert first["webhook-timestamp"].isdecimal()
    assert int(first["webhook-timestamp"]) < int(second["webhook-timestamp"])
    assert first["webhook-signature"] != second["webhook-signature"]
    assert hook.verified(SECRET) == [True, True]


async def test_the_command_shows_and_rotates(bench: Bench) -> None:
    """The newest is alone on standard output, those before stand on the other with their time; JSON has all."""
    status, first, told = await run(bench, "webhooks", "secret")
    assert (status, told, len(first.split())) == (0, "", 1)
    status, new, told = await run(bench, "webhooks", "secret", "--rotate")
    assert (status, len(new.split()), new != first) == (0, 1, True)
    assert told.splitlines()[0].startswith(f"{first.strip()}  until 2")
    assert "both" in told.splitlines()[1]
    shown, as_json = await asyncio.gather(run(bench, "webhooks", "secret"), run(bench, "webhooks", "secret", "--json"))
    assert (shown[1], shown[2].split()[0]) == (new, first.strip())
    view = json.loads(as_json[1])
    assert (view["secrets"], view["until"][0], view["source"]) == ([new.strip(), first.strip()], None, "redis")
    assert view["until"][1].endswith("Z")


async def test_a_terminal_shows_all_secrets(bench: Bench) -> None:
    """There the newest is a line by itself, and those before stand below with their time."""
    [old] = await bench.store.secrets.valid()
    new = make_secret()
    await bench.store.secrets.rotate(new)
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "worker", "webhooks", "secret",
        stdout=theirs, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "REDIS_URL": bench.redis_url, "WEBHOOK_SECRET": "", "COLUMNS": "200"},
    )  # fmt: skip
    _, err = await process.communicate()
    lines = os.read(ours, 65_536).decode().splitlines()
    os.close(ours)
    os.close(theirs)
    assert (process.returncode, err, lines[0]) == (0, b"", new)
    assert lines[1].startswith(f"{old.text}  until 2")


async def test_what_cannot_be_read_has_no_fingerprint(bench: Bench) -> None:
    """A worker whose secret is damaged says that it is alive all the same, and looking makes none."""
    signing = SigningSecrets(None, bench.store.secrets, bench.store.now_ms)
    assert await signing.fingerprints() == []
    assert not await bench.raw.exists(CURRENT)
    await bench.raw.set(CURRENT, "rubbish")
    assert await signing.fingerprints() is None


async def test_a_secret_that_is_set_is_not_rotated(bench: Bench) -> None:
    """The refusal says what to do instead, and what Redis keeps is left alone; shown is what is set."""
    secrets = f"{make_secret()} {make_secret()}"
    refused, shown = await asyncio.gather(
        run(bench, "webhooks", "secret", "--rotate", secret=secrets),
        run(bench, "webhooks", "secret", "--json", secret=secrets),
    )
    status, out, told = refused
    assert (status, out, told.count("\n")) == (1, "", 1)
    assert all(word in told for word in ("WEBHOOK_SECRET is set", "in front", "restart", "a day later"))
    assert "whsec_[" not in told
    view = {"secrets": secrets.split(), "until": [None, None], "source": "environment"}
    assert json.loads(shown[1]) == view
    assert not await bench.raw.exists(CURRENT, BEFORE)


async def test_too_many_are_told_in_one_line(bench: Bench) -> None:
    """Status 1, when to try again, and no secret."""
    await bench.store.secrets.valid()
    for _ in range(MOST_VALID - 1):
        await bench.store.secrets.rotate(make_secret())
    status, out, told = await run(bench, "webhooks", "secret", "--rotate")
    assert (status, out, told.count("\n")) == (1, "", 1)
    assert "when the oldest ends" in told
    assert "whsec_" not in told


async def test_all_webhooks_of_a_job_are_sent_again(bench: Bench, hook: Hook) -> None:
    """Those of the job and no others go again under their ids, asked for first as with --dead."""
    async with bench.worker():
        events = ["job.processing", "job.completed"]
        mine, other = [
            await bench.submit(id=name, input=directed(), webhook_url=hook.url, webhook_events=events)
            for name in ("mine", "other")
        ]
        await asyncio.gather(bench.ended(mine), bench.ended(other))
        await eventually(lambda: _came(hook, 4))
        asked, sent, nobody, two = await asyncio.gather(
            run(bench, "webhooks", "replay", "--job", mine),
            run(bench, "webhooks", "replay", "--job", mine, "--yes", "--json"),
            run(bench, "webhooks", "replay", "--job", "nobody", "--yes"),
            run(bench, "webhooks", "replay", "--job", mine, "--dead"),
        )
        await eventually(lambda: _came(hook, 6))
    assert (asked[0], "2 webhooks of mine: add --yes" in asked[2]) == (2, True)
    assert json.loads(sent[1]) == {"matched": 2, "replayed": 2, "refused": 0, "reasons": []}
    assert (nobody[0], "there is no job nobody" in nobody[2]) == (1, True)
    assert (two[0], "give one of" in two[2]) == (2, True)
    jobs = [json.loads(body)["data"]["id"] for _, body in hook.came]
    assert (jobs.count(mine), jobs.count(other)) == (4, 2)
    assert len({headers["webhook-id"] for headers, _ in hook.came}) == 4


async def test_a_job_without_webhooks_has_none_to_send(bench: Bench) -> None:
    """It is no error, and nothing is asked."""
    job_id = await bench.submit(input=directed())
    assert (await run(bench, "webhooks", "replay", "--job", job_id))[:2] == (0, "0 replayed\n")
