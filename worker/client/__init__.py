"""The Python client for backend services: ``client`` is what they call, and raises what is in ``errors``.

Imports the standard library, redis, arq and modules of ``worker`` that do likewise, and nothing else, so that it works
in projects that have packages of their own by the names of ours.
"""

from worker.client.checks import Kind, Status
from worker.client.client import Job, Page, WorkerClient
from worker.client.errors import (
    Conflict,
    CredentialsRefused,
    FieldError,
    InvalidRequest,
    NoAnswer,
    NoSuchJob,
    NotPossible,
    RedisUnavailable,
    StorageFull,
    UnreadableJob,
    WorkerClientError,
    WrongAddress,
)

__all__ = [
    "Conflict",
    "CredentialsRefused",
    "FieldError",
    "InvalidRequest",
    "Job",
    "Kind",
    "NoAnswer",
    "NoSuchJob",
    "NotPossible",
    "Page",
    "RedisUnavailable",
    "Status",
    "StorageFull",
    "UnreadableJob",
    "WorkerClient",
    "WorkerClientError",
    "WrongAddress",
]
