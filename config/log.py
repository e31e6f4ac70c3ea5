"""Owns logging: structlog as JSON lines or for a terminal, the list of event names, and redaction of secrets.

Redaction works on the finished line, so that no field, exception or foreign logger escapes it. On a console control
characters are shown, not obeyed: a gateway's or a consumer's words come there.
"""

import io
import logging
import os
import re
import socket
import sys
from collections.abc import Iterable
from typing import Any, TextIO

import structlog

EVENTS = frozenset(
    {
        "arq.job_rejected",
        "delivery.attempted",
        "delivery.ended",
        "destination.failing",
        "destination.recovered",
        "duty.crashed",
        "failure.unrecognised",
        "intake.restarted",
        "job.backed_off",
        "job.canceled",
        "job.completed",
        "job.created",
        "job.failed",
        "job.failed_over",
        "job.held",
        "fleet.held",
        "fleet.resumed",
        "job.parked",
        "job.quarantined",
        "job.rejected",
        "job.retried",
        "jobs.pruned",
        "key.set_aside",
        "key.unusual",
        "lease.lost",
        "process.started",
        "process.stopped",
        "record.unreadable",
        "redis.away",
        "request.failed",
        "request.refused",
        "redis.back",
        "sequence.restored",
        "storage.freed",
        "storage.full",
        "task.accepted",
        "task.ended_late",
        "task.jobless",
        "task.kept",
        "task.not_spooled",
        "task.partial",
        "task.spooled",
        "task.word_unknown",
        "upkeep.failed",
        "upkeep.repaired",
        "work.poisoned",
    }
)

_SECRETS = re.compile(r"""(sk-ony-|whsec_)[A-Za-z0-9+/=_-]+|(?i:(bearer\s+))[^\s"'\\,}\]]+""")
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/:@]*):([^\s/@]+)@")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_OF_MANY_LINES = ("exception", "stack")
_hidden: set[str] = set()
_process: dict[str, str | int] = {}


def hide(secrets: Iterable[str | None]) -> None:
    """Have these exact texts redacted as well, whatever they look like."""
    _hidden.update(secret for secret in secrets if secret and len(secret) >= 4)


def redact(text: str) -> str:
    """Blot out keys, webhook secrets, bearer tokens, passwords in URLs, and every text given to ``hide``."""
    text = _SECRETS.sub(lambda match: f"{match[1] or match[2]}[redacted]", text)
    text = _URL_PASSWORD.sub(r"\1:[redacted]@", text)
    for secret in _hidden:
        text = text.replace(secret, "[redacted]")
    return text


def name_process() -> None:
    """Have every line from now on tell host and pid, as ``queues`` shows them: for processes that run for long."""
    _process.update(host=socket.gethostname(), pid=os.getpid())


def _named(_logger: Any, _method: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {**fields, **_process}


def _redacted(_logger: Any, _method: str, line: Any) -> str:
    return redact(str(line))


class _Quoted:
    """A text as Python writes it, which shows what a terminal would obey."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return repr(self._text)


def _shown(text: str) -> str:
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def _shown_lines(text: str) -> str:
    return "\n".join(_shown(line).replace(r"\t", "\t") for line in text.split("\n"))


def _disarmed(_logger: Any, _method: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Have no text of whatever origin move the cursor, forge a line or turn the direction of writing."""
    for name, value in fields.items():
        if name == "event":
            fields[name] = _shown(str(value))
        elif isinstance(value, str) and _CONTROL.search(value):
            fields[name] = _shown_lines(value) if name in _OF_MANY_LINES else _Quoted(value)
    return fields


def _traceback(sink: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    plain = io.StringIO()
    structlog.dev.plain_traceback(plain, exc_info)
    sink.write(_shown_lines(plain.getvalue()))


def configure_logging(*, level: str, as_json: bool) -> None:
    """Send our events and other libraries' to standard error, a redacted line each. Safe to call twice."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named,
    ]
    if as_json:
        rendering: list[Any] = [
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
        ]
    else:
        rendering = [
            _disarmed,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_traceback),
        ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering, _redacted],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # They say at length what our own events say; arq's would also print inputs.
    for name in ("arq", "uvicorn", "uvicorn.access", "uvicorn.error", "httpx", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


log: structlog.stdlib.BoundLogger = structlog.get_logger("onysoft")
