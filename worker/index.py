"""Owns how indexes are read: their tops, merged into one list, newest first.

Imports the standard library only, because the Python client lists jobs by it as the other doors do.
"""

import heapq
from collections.abc import Iterable, Sequence
from itertools import islice
from operator import itemgetter


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
    return [
        (int(sequence), name.decode("utf-8", "replace")) for name, sequence in zip(flat[::2], flat[1::2], strict=True)
    ]
