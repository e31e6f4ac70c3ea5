"""Owns the check of a set-up: whether settings, gateway, Redis, workers and webhooks are as they should be.

Each check is a function that gives findings and never raises for what it finds. Those that go over a network have
``ANSWER_S`` seconds and run at the same time. Nothing is changed, nothing is sent to a webhook's destination beyond
the opening of a connection, and no secret is named.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import ExitStack
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from config.models import KINDS, Models
from config.settings import Settings, SettingsError
from jobs.destinations import is_public, url_fault
from worker.absence import place
from worker.doctor.findings import ANSWER_S, Finding, Level, skew
from worker.doctor.redis_checks import check_redis
from worker.embedded import EmbeddedRedisError
from worker.gateway import USER_AGENT
from worker.main import KEY_FORM, load_settings, redis_url
from worker.spool import ASIDE, FOLDER, Spool
from worker.transport import Transport, read_capped

ROOM_BYTES = 500 * 1024 * 1024
LIST_LIMIT_BYTES = 1024 * 1024


def diagnose() -> list[Finding]:
    """Check everything that can be checked."""
    try:
        settings, models = load_settings(quiet=True)
    except SettingsError as error:
        return [_scope(None), *(_unsettled(fault) for fault in error.faults)]
    found = [
        _scope(settings),
        Finding("settings", "ok", "every variable is valid"),
        *_models_file(settings, models),
        *_key(settings),
        *_spool(settings),
    ]
    with ExitStack() as stack:
        try:
            url = stack.enter_context(redis_url(settings, start="if_data"))
        except EmbeddedRedisError as error:
            mend = "start `onysoft-worker up`, or set DATA_DIR or REDIS_URL to where the jobs are"
            redis = [*_data_dir(settings), Finding("redis", "problem", str(error), mend)]
            return found + redis + asyncio.run(_all_at_once(settings))
        found += _data_dir(settings)
        return found + asyncio.run(_all_at_once(settings, check_redis(url, settings, models)))


async def _all_at_once(settings: Settings, *more: Coroutine[None, None, list[Finding]]) -> list[Finding]:
    checked = await asyncio.gather(_gateway(settings), *more, _destination(settings))
    return [finding for findings in checked for finding in findings]


# --- settings


def _scope(settings: Settings | None) -> Finding:
    """Say what is checked: settings come from the shell this runs in, and a service may have others."""
    says = f"the settings of this shell, in {Path.cwd()}"
    if settings is None:
        return Finding("checked", "ok", says)
    if settings.redis_url is None:
        says += f", with the embedded Redis in {settings.data_dir.absolute()} (REDIS_URL is not set)"
    else:
        says += f", with the Redis of REDIS_URL, {place(settings.redis_url)}"
    return Finding("checked", "ok", says)


def _unsettled(fault: str) -> Finding:
    name = "models file" if fault.startswith("MODELS_FILE") else "settings"
    return Finding(name, "problem", fault, "set it right and run the doctor again: the other checks need it")


def _models_file(settings: Settings, models: Models) -> Iterator[Finding]:
    where = settings.models_file or "the packaged one"
    defaults = ", ".join(f"{kind} {models.default_model(kind)}" for kind in KINDS)
    yield Finding("models file", "ok", f"{where}: {len(models.known)} models, {len(models.chains)} chains ({defaults})")


def _key(settings: Settings) -> Iterator[Finding]:
    if settings.onysoft_api_key is None:
        yield Finding("gateway key", "problem", "ONYSOFT_API_KEY is not set", "set it to your gateway key (sk-ony-...)")
    elif not KEY_FORM.fullmatch(settings.onysoft_api_key):
        mend = "compare it with the key in your Onysoft account: a character may be missing"
        yield Finding("gateway key", "warning", "ONYSOFT_API_KEY is not sk-ony- followed by 48 hex digits", mend)
    else:
        yield Finding("gateway key", "ok", "is set, in the usual form")


DATA_DIR_IS_FOR: Mapping[bool, tuple[Level, str]] = {  # by whether the embedded Redis lies there
    True: ("problem", "Redis takes no job that it cannot write to disk"),
    False: ("warning", "tasks that were accepted while Redis is away are kept there"),
}


def _data_dir(settings: Settings) -> Iterator[Finding]:
    root = settings.data_dir.absolute()
    level, mend = DATA_DIR_IS_FOR[settings.redis_url is None]
    there = next(folder for folder in (root, *root.parents) if os.access(folder, os.F_OK))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield Finding("data directory", level, f"{there} cannot be written to", f"set DATA_DIR, or its owner: {mend}")
        return
    free_bytes = shutil.disk_usage(there).free
    room = f"{root} can be written to, {free_bytes / 1024**3:.1f} GB free"
    if free_bytes < ROOM_BYTES:
        yield Finding("data directory", "warning", room, f"make room: {mend}")
    else:
        yield Finding("data directory", "ok", room)


def _spool(settings: Settings) -> Iterator[Finding]:
    waiting, jobless = Spool(settings.data_dir, prefix=settings.key_prefix).counts()
    where = settings.data_dir.absolute() / FOLDER
    if waiting:
        says = f"{_tasks(waiting)} in {where} not stored in Redis yet"
        yield Finding("accepted tasks", "warning", says, "start a worker with this DATA_DIR: it stores them")
    if jobless:
        says = f"{_tasks(jobless)} in {where} of no job in Redis: paid for, and tracked by nobody"
        mend = f"look them up at the gateway by the task_id in each *{ASIDE}, then delete the files"
        yield Finding("accepted tasks", "problem", says, mend)


def _tasks(count: int) -> str:
    return "1 accepted task lies" if count == 1 else f"{count} accepted tasks lie"


# --- the gateway


ANSWERS: dict[int, tuple[Level, str, str]] = {
    200: ("ok", "answers and takes the key", ""),
    401: ("problem", "refuses the key (401)", "set ONYSOFT_API_KEY to a key that is valid in your Onysoft account"),
    402: ("problem", "says the balance is used up (402)", "top up the Onysoft account"),
    403: ("problem", "forbids it (403)", "see in your Onysoft account what the key may do, and from where"),
    404: ("problem", "knows no /v1/models (404)", "set ONYSOFT_BASE_URL to the gateway's address, without a path"),
    429: ("warning", "answers that there are too many requests (429)", "wait a minute; lower REQUESTS_PER_MINUTE"),
}


async def _gateway(settings: Settings) -> list[Finding]:
    """Ask for the list of models: it costs nothing."""
    base, key = settings.onysoft_base_url, settings.onysoft_api_key
    headers = [("user-agent", USER_AGENT), ("accept", "application/json")]
    if key:
        headers.append(("authorization", f"Bearer {key}"))
    limits = {"connect": ANSWER_S, "pool": ANSWER_S, "read": ANSWER_S, "write": ANSWER_S, "total": ANSWER_S}
    transport = Transport(limit=1, keepalive_s=0)
    started_s = time.time()
    try:
        request = httpx.Request("GET", f"{base}/v1/models", headers=headers, extensions={"timeout": limits})
        response = await transport.handle_async_request(request)
        body, _ = await read_capped(response, LIST_LIMIT_BYTES)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        mend = "check ONYSOFT_BASE_URL, name resolution and the way out of this network"
        return [Finding("gateway", "problem", f"{base} cannot be reached: {_reason(error)}", mend)]
    finally:
        await transport.aclose()
    took_s = time.time() - started_s
    return [
        _answered(base, response.status_code, body, took_s, has_key=bool(key)),
        *_gateway_clock(response, started_s, took_s),
    ]


def _answered(base: str, status: int, body: bytes, took_s: float, *, has_key: bool) -> Finding:
    if status == 200 and not body.lstrip().startswith((b"{", b"[")):
        return Finding("gateway", "problem", f"{base} answers, but not as the gateway does", "check ONYSOFT_BASE_URL")
    if not has_key and status in {200, 401, 403}:
        return Finding("gateway", "ok", f"{base} answers in {took_s * 1000:.0f} ms; no key was tried")
    unusual: tuple[Level, str, str] = (
        "problem",
        f"answers with HTTP {status}",
        "check ONYSOFT_BASE_URL; wait if it lasts",
    )
    level, says, mend = ANSWERS.get(status, unusual)
    return Finding("gateway", level, f"{base} {says}" + (f", in {took_s * 1000:.0f} ms" if level == "ok" else ""), mend)


def _gateway_clock(response: httpx.Response, started_s: float, took_s: float) -> Iterator[Finding]:
    try:
        theirs_s = parsedate_to_datetime(response.headers["date"]).timestamp() + 0.5  # it tells whole seconds
    except (KeyError, ValueError, TypeError):
        return  # it does not tell
    yield skew("clock, gateway", theirs_s - (started_s + took_s / 2), "the gateway's")


def _reason(error: BaseException) -> str:
    """Name what kept a connection from coming about: the innermost cause that says something."""
    said = str(error)
    cause: BaseException | None = error
    while cause is not None:
        said = str(cause) or said
        cause = cause.__cause__
    return said or type(error).__name__


# --- webhooks


async def _destination(settings: Settings) -> list[Finding]:
    """See that the default destination can be connected to; nothing is sent."""
    name, url = "webhook destination", settings.webhook_url
    if url is None:
        return []
    if fault := url_fault(url, allow_private=settings.webhook_allow_private):
        return [Finding(name, "problem", f"WEBHOOK_URL {fault}", "set WEBHOOK_URL")]
    parts = urlsplit(url)
    host, port = str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(ANSWER_S):
            addresses = await _resolve(host, port)
            private = [address for address in addresses if not is_public(address)]
            if private and not settings.webhook_allow_private:
                mend = "use a public destination, or set WEBHOOK_ALLOW_PRIVATE=true"
                return [Finding(name, "problem", f"{host} resolves to a non-public address ({private[0]})", mend)]
            await _connect(addresses[0], port, host if parts.scheme == "https" else None)
    except socket.gaierror as error:
        return [Finding(name, "problem", f"{host} cannot be resolved ({error.strerror})", "check WEBHOOK_URL")]
    except ssl.SSLError as error:
        return [Finding(name, "problem", f"{host}:{port} has no valid TLS: {error}", "mend its certificate")]
    except OSError as error:  # a TimeoutError is one
        says = f"{host}:{port} cannot be connected to ({error.strerror or f'no answer within {ANSWER_S:.0f} s'})"
        return [Finding(name, "warning", says, "start the receiver or open the way to it; deliveries are repeated")]
    return [Finding(name, "ok", f"{host}:{port} can be connected to")]


async def _resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(row[4][0]) for row in found]


async def _connect(address: str, port: int, tls_name: str | None) -> None:
    context = httpx.create_ssl_context() if tls_name else None
    _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=tls_name)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
