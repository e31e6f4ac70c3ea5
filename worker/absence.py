"""Owns how a Redis that cannot be used is told of: where it is, with nothing secret of its URL, and why."""

import os
import re
import socket
import ssl
from urllib.parse import urlsplit

_SAID = (
    (re.compile(r"(?:^|\s-?)OOM\b|command not allowed when used memory"), "it is at its maxmemory"),
    (re.compile(r"(?:^|\s-?)LOADING\b|loading the dataset"), "it is loading its data"),
)


def place(url: str) -> str:
    """Name a Redis by its URL, without user, password and options."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


def reason(error: BaseException) -> str:
    """Say in a few words what keeps Redis from answering: the first of an error's causes that tells."""
    cause: BaseException | None = error
    while cause is not None:
        if words := _words(cause):
            return words
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def _words(error: BaseException) -> str:
    match error:
        case socket.gaierror():
            return "unknown host"
        case ssl.SSLError():
            return f"TLS fails: {error.reason or error}"
        case _ if type(error).__name__ == "TimeoutError":  # redis-py has one of its own
            return "no answer in time"
        case OSError() if number := error.errno or _first_number(str(error)):
            return os.strerror(number).lower()
    return next((words for said, words in _SAID if said.search(str(error))), "")


def _first_number(text: str) -> int:
    """Read the first of the errors of a host that has several addresses."""
    found = re.search(r"\[Errno (\d+)\]", text)
    return int(found[1]) if found else 0
