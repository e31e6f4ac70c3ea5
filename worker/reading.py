"""Owns how a stored record becomes a ``Job``, and what is raised where it does not."""

from collections.abc import Mapping

from jobs.job import Job, NewerRecord, UnreadableRecord, from_form
from worker.record import NewerSchema, NotARecord, read_record


def decode(job_id: str, stored: Mapping[bytes, bytes]) -> Job:
    """Read a record; raise ``NewerRecord`` for a newer version's, ``UnreadableRecord`` for what is none."""
    try:
        return from_form(job_id, read_record(stored))
    except NewerSchema as error:
        raise NewerRecord(job_id) from error
    except NotARecord as error:
        raise UnreadableRecord(job_id, str(error)) from error
