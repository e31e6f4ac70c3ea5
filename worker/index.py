"""Owns how indexes are read: their tops, merged into one list, newest first.

Imports the standard library only, because the Python client lists jobs by it as the other doors do.
"""

import heapq
from collections.abc import Iterable, Sequence
from itertools import islice
from operator import itemgetter

from worker.record import number


def newest(rows: Iterable[Iterable[tuple[bytes, bytes | float]]], limit: int) -> list[tuple[int, str]]:
    """Merge the tops of indexes, each newest first as (id, sequence), into the newest of all as (sequence, id)."""
    merged = heapq.merge(
        *([(int(sequence), job_id.decode()) for job_id, sequence in row] for row in rows),
        key=itemgetter(0),
        reverse=True,
    )
    return list(islice(merged, limit))


def read_top(flat: Sequence[bytes]) -> list[tuple[int, str]]:
    """Read what ``lua/top.lua`` has merged already: ids and sequences in turn, as (sequence, id)."""
    rows = ((number(sequence), name) for name, sequence in zip(flat[::2], flat[1::2], strict=True))
    return [(sequence, name.decode("utf-8", "replace")) for sequence, name in rows if sequence is not None]
