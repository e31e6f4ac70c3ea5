"""Owns the environment: the one reader of ``os.environ`` and the one frozen ``Settings`` made from it.

Every variable is a row: name, default and the parser that says what is allowed. All faults are found in one go, so
that a deployment is mended once and not variable by variable. Source of names and defaults: the project's contract.
"""

import base64
import binascii
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from zoneinfo import ZoneInfo

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


class SettingsError(Exception):
    """The environment is not usable; ``faults`` holds one line a variable, each saying what is allowed."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A bearer token of the HTTP API; ``name`` stands for its holder in the logs."""

    name: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DailyReset:
    """The wall-clock time at which daily quotas reset, in its zone."""

    hour: int
    minute: int
    zone: ZoneInfo


def _seconds(text: str, *, low: float = 0.0, high: float = 31_536_000.0) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise ValueError(f"seconds between {low:.10g} and {high:.10g}, fractions allowed")
    return value


def _whole(text: str, *, low: int, high: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise ValueError(f"a whole number between {low} and {high}")
    return int(text)


def _choice(text: str, *, of: tuple[str, ...]) -> str:
    if text not in of:
        raise ValueError(f"one of {', '.join(of)}")
    return text


def _switch(text: str) -> bool:
    if text.lower() not in {"true", "false", "1", "0", "yes", "no"}:
        raise ValueError("true or false")
    return text.lower() in {"true", "1", "yes"}


def _api_key(text: str) -> str:
    if not re.fullmatch(r"[!-~]{8,512}", text):
        raise ValueError("a gateway key: sk-ony- followed by 48 hex digits")
    return text


def _http_url(text: str) -> str:
    parts = _split(text)
    if parts is None or parts[0] not in {"http", "https"} or not parts[1] or "@" in text or set(text) & set("?#"):
        raise ValueError("an http or https URL without credentials, query or fragment")
    return text.rstrip("/")


def _webhook_url(text: str) -> str:
    parts = _split(text)
    if parts is None or parts[0] not in {"http", "https"} or not parts[1]:
        raise ValueError("an http or https URL")
    return text


def _redis_text(text: str) -> str:
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("printable ASCII without spaces")
    return text


_RedisOptions = Mapping[str, tuple[Callable[[str], Any], str]]
_any_redis: _RedisOptions = {  # name -> (parser, how it is written)
    "db": (partial(_whole, low=0, high=999_999), "N"),
    "username": (str, "TEXT"),
    "password": (str, "TEXT"),
    "client_name": (_redis_text, "TEXT"),
    "socket_timeout": (partial(_seconds, low=0.001), "SECONDS"),
    "socket_connect_timeout": (partial(_seconds, low=0.001), "SECONDS"),
    "health_check_interval": (partial(_whole, low=0, high=86_400), "SECONDS"),
    "retry_on_timeout": (_switch, "yes|no"),
}
_tcp_redis: _RedisOptions = {**_any_redis, "socket_keepalive": (_switch, "yes|no")}
_tls_redis: _RedisOptions = {
    **_tcp_redis,
    "ssl_ca_certs": (_redis_text, "FILE"),
    "ssl_certfile": (_redis_text, "FILE"),
    "ssl_keyfile": (_redis_text, "FILE"),
    "ssl_cert_reqs": (partial(_choice, of=("required", "optional", "none")), "required|optional|none"),
    "ssl_check_hostname": (_switch, "yes|no, yes only with ssl_cert_reqs=required"),
}
_redis_options: Mapping[str, _RedisOptions] = {"redis": _tcp_redis, "rediss": _tls_redis, "unix": _any_redis}


_cut_short = re.compile(r"rediss?://[^/?#@]*:[^/?#@]*[/?#].*@", re.DOTALL)  # such a character ends what is the host's
_percent_encoded = "redis://USER:PASSWORD@HOST:PORT/N; percent-encode the password: / is %2F, # is %23, ? is %3F"


def _redis_url(text: str) -> str:
    """Refuse what the client would trip over only when it connects: options it does not know or cannot read."""
    parts = _split(text)
    if parts is None or parts[0] not in _redis_options:
        raise ValueError(_percent_encoded if _cut_short.match(text) else "a redis://, rediss:// or unix:// URL")
    url, options = urlsplit(text), _redis_options[parts[0]]
    path = r"/.+" if url.scheme == "unix" else r"/?[0-9]{0,6}"
    if not re.fullmatch(path, url.path) or url.fragment or any("\ud800" <= char <= "\udfff" for char in text):
        where = "unix:///PATH?db=N" if url.scheme == "unix" else f"{url.scheme}://HOST:PORT/N"
        special = f"{where}, with what is special in a name or password percent-encoded"
        raise ValueError(_percent_encoded if _cut_short.match(text) else special)
    if not _are_readable(parse_qsl(url.query, keep_blank_values=True), options):
        if "=" not in url.query and _cut_short.match(text):
            raise ValueError(_percent_encoded)
        allowed = ", ".join(f"{name}={form}" for name, (_, form) in options.items())
        raise ValueError(f"after the ? of a {url.scheme}:// URL, each once: {allowed}")
    return text


def _are_readable(pairs: list[tuple[str, str]], options: _RedisOptions) -> bool:
    given = {name: unquote(value) for name, value in pairs}
    try:
        for name, value in given.items():
            options[name][0](value)
    except (KeyError, ValueError):
        return False
    unverified = given.get("ssl_cert_reqs", "required") != "required"
    return len(given) == len(pairs) and not (unverified and _switch(given.get("ssl_check_hostname", "no")))


def _split(text: str) -> tuple[str, str | None] | None:
    try:
        parts = urlsplit(text)
        _ = parts.port  # a bad port shows only when it is read
    except ValueError:
        return None
    return parts.scheme, parts.hostname


def _key_prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", text):
        raise ValueError("1-64 characters of A-Za-z0-9._:-")
    return text


def _tokens(text: str) -> tuple[ApiToken, ...]:
    tokens = []
    for number, item in enumerate((part.strip() for part in text.split(",")), start=1):
        name, colon, token = item.partition(":")
        held = ApiToken(name, token) if colon else ApiToken(f"token-{number}", item)
        if not held.name or not re.fullmatch(r"[!-~]+", held.token):
            raise ValueError("comma-separated tokens of printable ASCII without spaces, each as token or name:token")
        tokens.append(held)
    return tuple(tokens)


def webhook_secret_fault(text: str) -> str | None:
    """Say what is wrong with a webhook secret, without quoting it; None where nothing is.

    Base64 is the standard alphabet, padded, the one way an encoder writes it: receivers' libraries differ in what they
    make of anything else, and one that reads other bytes than we sign with refuses every webhook.
    """
    coded = text.removeprefix("whsec_")
    if coded == text:
        return "does not begin with whsec_"
    if re.fullmatch(r"[A-Za-z0-9_-]*[_-][A-Za-z0-9_-]*={0,2}", coded):
        return "is URL-safe base64, with + and / written as - and _"
    try:
        key = base64.b64decode(coded, validate=True)
    except (binascii.Error, ValueError):
        return "is no base64 behind whsec_, padded with = to a multiple of four"
    if base64.b64encode(key).decode() != coded:
        return "is no base64 behind whsec_ as an encoder writes it"
    return None if 24 <= len(key) <= 64 else f"is of {len(key)} bytes"


def _webhook_secrets(text: str) -> tuple[str, ...]:
    secrets = text.split()
    faults = [
        (number, f"is the same as number {secrets.index(secret) + 1}")
        if secret in secrets[: number - 1]
        else (number, webhook_secret_fault(secret))
        for number, secret in enumerate(secrets, start=1)
    ]
    told = [f"{f'number {number}' if len(secrets) > 1 else 'this'} {fault}" for number, fault in faults if fault]
    if told:
        allowed = "whsec_ followed by base64 of 24-64 bytes, several separated by spaces while rotating"
        raise ValueError(f"{allowed}; {', '.join(told)}")
    return tuple(secrets)


MOST_DELAYS = 50  # every attempt of a delivery stays in its log


def _schedule(text: str) -> tuple[float, ...]:
    try:
        delays = tuple(_seconds(part.strip()) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"comma-separated seconds, one a delivery attempt: {error}") from None
    if len(delays) > MOST_DELAYS:
        raise ValueError(f"at most {MOST_DELAYS} attempts")
    return delays


def _daily_reset(text: str) -> DailyReset:
    match = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d) (\S+)", text)
    try:
        zone = ZoneInfo(match[3]) if match else None
    except (ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError, caught below
        zone = None
    except KeyError:
        zone = None
    if match is None or zone is None:
        raise ValueError("HH:MM and a zone, such as 00:00 Europe/Istanbul")
    return DailyReset(int(match[1]), int(match[2]), zone)


def _names(text: str) -> frozenset[str]:
    names = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not all(re.fullmatch(r"[a-z_]+", name) for name in names):
        raise ValueError("comma-separated terminal failure codes, such as content_rejected")
    return names


Parser = Callable[[str], Any]


def _variable(default: str | None, parse: Parser, *, secret: bool = False) -> Any:
    """Declare a setting: its default as it would stand in the environment, and its parser."""
    return field(metadata={"default": default, "parse": parse}, repr=not secret)


_positive = partial(_seconds, low=0.001)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration besides the models file. A field is its variable's name in lower case."""

    onysoft_api_key: str | None = _variable(None, _api_key, secret=True)
    onysoft_base_url: str = _variable("https://api.onysoft.com", _http_url)
    redis_url: str | None = _variable(None, _redis_url, secret=True)
    data_dir: Path = _variable(".onysoft-worker", Path)
    key_prefix: str = _variable("onysoft", _key_prefix)
    api_tokens: tuple[ApiToken, ...] | None = _variable(None, _tokens, secret=True)
    bind_host: str = _variable("127.0.0.1", str)
    port: int = _variable("8000", partial(_whole, low=0, high=65535))
    webhook_secret: tuple[str, ...] | None = _variable(None, _webhook_secrets, secret=True)
    webhook_url: str | None = _variable(None, _webhook_url)
    webhook_allow_private: bool = _variable("false", _switch)
    webhook_schedule_s: tuple[float, ...] = _variable("0,5,300,1800,7200,18000,36000,36000", _schedule)
    webhook_timeout_s: float = _variable("15", _positive)
    max_attempts: int = _variable("5", partial(_whole, low=1, high=100))
    retry_base_s: float = _variable("2", _seconds)
    retry_cap_s: float = _variable("300", _seconds)
    poll_min_s: float = _variable("2", _positive)
    poll_max_s: float = _variable("30", _positive)
    submit_timeout_s: float = _variable("20", _positive)
    shutdown_grace_s: float = _variable("25", _seconds)
    track_timeout_s: float | None = _variable(None, _positive)
    job_deadline_s: float = _variable("172800", _positive)
    quota_reset: DailyReset = _variable("00:00 Europe/Istanbul", _daily_reset)
    unknown_submit: str = _variable("retry", partial(_choice, of=("retry", "fail")))
    account_errors: str = _variable("fail", partial(_choice, of=("fail", "hold")))
    failover_on: frozenset[str] = _variable("content_rejected", _names)
    requests_per_minute: int = _variable("0", partial(_whole, low=0, high=1_000_000))
    concurrency: int = _variable("100", partial(_whole, low=2, high=10_000))
    retention_s: float = _variable("604800", _positive)
    models_file: Path | None = _variable(None, Path)
    log_level: str = _variable("info", partial(_choice, of=("debug", "info", "warning", "error")))
    log_format: str | None = _variable(None, partial(_choice, of=("console", "json")))
    otel_exporter_otlp_endpoint: str | None = _variable(None, _http_url)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read and check everything; raise ``SettingsError`` with one line for each variable that is wrong.

        An empty value counts as unset. No value is ever quoted back: it may be a secret in the wrong place.
        """
        environ = os.environ if environ is None else environ
        faults: list[str] = []
        values: dict[str, Any] = {}
        for row in fields(cls):
            name = row.name.upper()
            text = environ.get(name, "").strip() or row.metadata["default"]
            try:
                values[row.name] = None if text is None else row.metadata["parse"](text)
            except ValueError as fault:
                faults.append(f"{name}: allowed is {fault}")
        if not faults:
            faults = _conflicts(values)
        if faults:
            raise SettingsError(faults)
        return cls(**values)

    @property
    def queue_name(self) -> str:
        """The arq queue backends enqueue to."""
        return f"{self.key_prefix}:jobs"

    @property
    def log_as_json(self) -> bool:
        """Whether logs are JSON lines: as set, else wherever standard error is no terminal."""
        return self.log_format == "json" if self.log_format else not sys.stderr.isatty()


def _conflicts(values: Mapping[str, Any]) -> list[str]:
    """Name the values that are fine alone and wrong together."""
    faults = []
    if values["retry_cap_s"] < values["retry_base_s"]:
        faults.append("RETRY_CAP_S: allowed is at least RETRY_BASE_S")
    if values["poll_max_s"] < values["poll_min_s"]:
        faults.append("POLL_MAX_S: allowed is at least POLL_MIN_S")
    if values["api_tokens"] is None and values["bind_host"] not in LOOPBACK_HOSTS:
        faults.append("BIND_HOST: allowed is a loopback address unless API_TOKENS is set")
    return faults
