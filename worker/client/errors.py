"""Owns what the Python client raises. Everything is a ``WorkerClientError``; ``worker.client`` gives all of these out.

Imports the standard library only.
"""

from typing import TypedDict


class FieldError(TypedDict):
    """One thing wrong with a request: the field, dotted, and what to do about it."""

    field: str
    message: str


class WorkerClientError(Exception):
    """Whatever goes wrong in the client."""


class WrongAddress(WorkerClientError, ValueError):  # noqa: N818 - named after what it says
    """The URL is none of a Redis, or a parameter in it is; neither it nor any value in it is repeated."""


class InvalidRequest(WorkerClientError):  # noqa: N818 - named after what it says
    """The request cannot be taken, and nothing of it was; ``errors`` has an entry for each thing wrong with it."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(*errors)
        self.errors = errors

    def __str__(self) -> str:
        return "; ".join(f"{error['field']}: {error['message']}" for error in self.errors)


class Conflict(WorkerClientError):  # noqa: N818 - named after what it says
    """The id is taken by a job with a different request: send the same request, or choose another id."""


class NoSuchJob(WorkerClientError):  # noqa: N818 - named after what it says
    """There is no job of this id: it was never made, or is gone RETENTION_S after its end."""


class NotPossible(WorkerClientError):  # noqa: N818 - named after what it says
    """The job's status does not allow it; the message says why."""


class NoAnswer(WorkerClientError):  # noqa: N818 - named after what it says
    """No worker is alive, or none answered in time. The wish stays queued: the next worker carries it out."""


class StorageFull(WorkerClientError):  # noqa: N818 - named after what it says
    """Redis has no room for new jobs, and nothing was queued: raise its maxmemory, or wait until jobs are pruned."""


class UnreadableJob(WorkerClientError):  # noqa: N818 - named after what it says
    """The job was written by a newer version, or is damaged: the client cannot show it."""


class RedisUnavailable(WorkerClientError):  # noqa: N818 - named after what it says
    """Redis cannot be used now. A call may or may not have been queued: repeat it, under an id of your own."""


class CredentialsRefused(RedisUnavailable):
    """Redis does not let the client in, and nothing was queued: set user and password in its URL."""


def fault(field: str, message: str) -> InvalidRequest:
    """Make the error of a single field."""
    return InvalidRequest({"field": field, "message": message})
