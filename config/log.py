"""Owns logging: structlog as JSON lines or for a terminal, the list of event names, and redaction of secrets.

Redaction works on the finished line, so that no field, exception or foreign logger escapes it.
"""

import logging
import re
import sys
from collections.abc import Iterable
from typing import Any

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
        "job.rejected",
        "job.retried",
        "jobs.pruned",
        "key.unusual",
        "lease.lost",
        "process.started",
        "process.stopped",
        "record.unreadable",
        "redis.away",
        "request.failed",
        "request.refused",
        "task.accepted",
        "task.ended_late",
        "task.kept",
        "task.partial",
        "task.word_unknown",
        "upkeep.failed",
    }
)

_SECRETS = re.compile(r"""(sk-ony-|whsec_)[A-Za-z0-9+/=_-]+|(?i:(bearer\s+))[^\s"'\\,}\]]+""")
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/:@]*):([^\s/@]+)@")
_hidden: set[str] = set()


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


def _redacted(_logger: Any, _method: str, line: Any) -> str:
    return redact(str(line))


def configure_logging(*, level: str, as_json: bool) -> None:
    """Send our events and other libraries' to standard error, a redacted line each. Safe to call twice."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if as_json:
        rendering: list[Any] = [
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
        ]
    else:
        rendering = [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
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
