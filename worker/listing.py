"""Owns how jobs are listed: newest first, by status, kind and model, a page at a time.

Every job lies in the index of its status and kind, and in that of its status, kind and model, under a sequence that
never changes. A list merges the tops of the indexes its filters leave, so that it costs the same whatever there is;
they are read as of one moment, so that a job on its way from one to another is neither met twice nor missed.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from config.models import KINDS
from jobs.states import Status
from worker.index import read_top
from worker.keys import Keys
from worker.link import STORE_ERRORS, Link, pairs, unreadable
from worker.record import UNSHOWABLE, read_record, view

INDEXED_KINDS = (*KINDS, "unknown")  # "unknown": a request that was refused for its kind
BULK = 500


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs; None is any."""

    status: str | None = None
    kind: str | None = None
    model: str | None = None

    def indexes(self, keys: Keys) -> list[str]:
        """Name the indexes that hold just these jobs."""
        statuses = [self.status] if self.status else list(Status)
        kinds = [self.kind] if self.kind else INDEXED_KINDS
        return [keys.index(status, kind, self.model) for status in statuses for kind in kinds]


@dataclass(frozen=True, slots=True)
class Page:
    """Views of jobs, newest first; ``next_before`` is the sequence to go on below, None on the last page."""

    jobs: tuple[dict[str, Any], ...]
    next_before: int | None


class Listing:
    """The store's part for lists of jobs."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def page(self, wanted: Filter, *, before: int | None = None, limit: int) -> Page:
        """Read a page. A record that this version cannot read, or that went meanwhile, is left out."""
        top = "" if before is None else before
        indexes = wanted.indexes(self._keys)
        found = read_top(await self._link.script("top", indexes, [top, limit + 1]))
        return Page(
            await self._views([job_id for _, job_id in found[:limit]]),
            found[limit - 1][0] if len(found) > limit else None,
        )

    async def ended_last(self, limit: int) -> tuple[dict[str, Any], ...]:
        """Read the jobs that ended last, the latest first."""
        ids = await self._link.command("ZREVRANGE", self._keys.one("ended"), 0, limit - 1)
        return await self._views([job_id.decode("utf-8", "replace") for job_id in ids])

    async def count(self, wanted: Filter) -> int:
        """Count the jobs."""
        return sum(await self._link.atomic(("ZCARD", index) for index in wanted.indexes(self._keys)))

    async def every(self, wanted: Filter) -> AsyncIterator[dict[str, Any]]:
        """Go through all of them, newest first. Those that come, go or change meanwhile may be seen or not."""
        before: int | None = None
        while True:
            page = await self.page(wanted, before=before, limit=BULK)
            for job in page.jobs:
                yield job
            if page.next_before is None:
                return
            before = page.next_before

    async def _views(self, ids: Sequence[str]) -> tuple[dict[str, Any], ...]:
        records = await self._link.each(("HGETALL", self._keys.job(job_id)) for job_id in ids)
        views = (_shown(*row) for row in zip(ids, records, strict=True))
        return tuple(shown for shown in views if shown is not None)


def _shown(job_id: str, record: Any) -> dict[str, Any] | None:
    """Show a record; None where there is none, or none that can be shown."""
    try:
        if isinstance(record, Exception):
            raise record
        return view(read_record(pairs(record))) if record else None
    except (*UNSHOWABLE, *STORE_ERRORS) as error:
        unreadable("job", job_id, f"{type(error).__name__}: {error}")
        return None
