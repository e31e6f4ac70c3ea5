"""Owns how a change of a job is put to Redis: the events it makes, and keys and arguments of the one script it is for.

Pure but for the ids it makes. The order of keys and arguments is that of ``lua/apply.lua``.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from config.models import Models
from jobs.changes import Change
from jobs.counters import MODEL_LABELS, Counter, labels_of
from jobs.destinations import Destination
from jobs.job import to_form
from jobs.pacing import SUBMISSIONS
from jobs.states import ENDED, LIVE, origins
from jobs.states import Event as Move
from worker.claims import Claim
from worker.ids import new_id
from worker.keys import DELIVER_WHEEL, TRACK_WHEEL, Keys, submit_wheel, track_member
from worker.link import Argument
from worker.record import SCHEMA, rfc3339, view, write_part


class Event(NamedTuple):
    """Something that is told to the outside; ``delivery`` is the id of its webhook, '' where there is none."""

    id: str
    type: str
    body: bytes
    delivery: str


class Steps:
    """Puts changes to Redis. ``models`` bounds the labels of counters."""

    def __init__(self, keys: Keys, models: Models, *, first_delivery_ms: int) -> None:
        self._keys = keys
        self._models = models
        self._first_delivery_ms = first_delivery_ms

    def keys(self, change: Change, claim: Claim | None, events: Sequence[Event]) -> list[str]:
        """Name the keys, in the order of the script."""
        keys, job = self._keys, change.after
        kind, before = job.spec.kind, change.before or job
        destination = Destination.of(job.spec.webhook_url or "").id
        lane = claim.heard.lane if claim is not None and claim.heard is not None else SUBMISSIONS
        return [
            keys.job(job.id), keys.input(job.id), keys.timeline(job.id),
            keys.wheel(submit_wheel(kind)), keys.leases(submit_wheel(kind)),
            keys.wheel(TRACK_WHEEL), keys.leases(TRACK_WHEEL), keys.wheel(DELIVER_WHEEL),
            keys.index(before.status, kind), keys.index(job.status, kind),
            keys.one("counters"), keys.one("events"), keys.deliveries("pending"), keys.one("sequence"),
            keys.one("ended"), keys.one("gate"), keys.one("cooldowns"), keys.deliveries_of(job.id),
            keys.index(before.status, kind, before.model), keys.index(job.status, kind, job.model), keys.one("health"),
            keys.one("deadlines"), *keys.pace(lane), keys.destination(destination), keys.waiting(destination),
            *(keys.delivery(event.delivery) for event in events if event.delivery),
        ]  # fmt: skip

    def arguments(
        self,
        change: Change,
        claim: Claim | None,
        events: Sequence[Event],
        *,
        input_json: bytes,
        announce: bool,
        is_hold_probe: bool,
    ) -> list[Argument]:
        """Give the arguments, in the order in which the script takes them."""
        job, before, lesson = change.after, change.before, change.lesson
        destination = Destination.of(job.spec.webhook_url or "")
        record = self._record_fields(change)
        counters = [self.counter(counter) for counter in (*change.counted, *(claim.counters if claim else ()))]
        model, is_well = change.model_health or ("", False)
        looks = [
            (track_member(attempt, job.id), "" if at_ms is None else at_ms) for attempt, at_ms in change.looks.items()
        ]
        dropped = [f"look:{attempt}" for attempt, at_ms in change.looks.items() if at_ms is None]
        if before is not None and before.result is not None and job.result is None:
            dropped.append("result")
        ended = ""
        if (job.status in ENDED) != (before is not None and before.status in ENDED):
            ended = "1" if job.status in ENDED else "0"
        note = json.dumps({"at": rfc3339(job.updated_at_ms), **_present(change.note)}, separators=(",", ":"))
        return [
            job.id, before.rev if before else "", job.rev, job.updated_at_ms,
            ",".join(sorted(origins(change.event))) if change.event else "",
            *self._lease(claim),
            self._submit_wheel(change),
            len(record), *(part for pair in record for part in pair),
            len(dropped), *dropped,
            len(looks), *(part for look in looks for part in look),
            len(counters), *(part for counter in counters for part in counter),
            len(events), *(part for event in events for part in event),
            job.spec.webhook_url or "", job.updated_at_ms + self._first_delivery_ms,
            destination.id, destination.name, destination.host,
            note, job.deadline_at_ms, ended, input_json,
            lesson.hold or "", "1" if lesson.release_hold else "0",
            *_begins(change), int(is_hold_probe), *heard_of(claim),
            lesson.cool_model or "", lesson.cool_until_ms,
            model and self._models.label(model), int(is_well), self._keys.changed(job.id),
            self._keys.one("wake") if announce else "", SCHEMA,
        ]  # fmt: skip

    def _record_fields(self, change: Change) -> list[tuple[str, Argument]]:
        job, before, form = change.after, change.before, to_form(change.after)
        record: list[tuple[str, Argument]] = [("status", job.status), ("state", write_part(form["state"]))]
        record.append(("schema", SCHEMA))  # by each write, since it may bring what the record's version did not have
        if before is None:
            record += [("fingerprint", job.spec.fingerprint), ("spec", write_part(form["spec"]))]
        if job.result is not None and (before is None or before.result is None):
            record.append(("result", write_part(job.result)))
        known = before.looks if before is not None else {}
        for number, look in job.looks.items():
            if change.looks.get(number) is not None and look != known.get(number):
                record.append((f"look:{number}", write_part(form["looks"][number])))
        return record

    @staticmethod
    def _submit_wheel(change: Change) -> Argument:
        if change.submit_at_ms is not None:
            moved = change.before is None or change.event is not None
            return change.submit_at_ms if moved else "keep"
        # While the job is being submitted, its claim on the wheel is what brings it back should the worker die.
        return "remove" if change.after.status not in LIVE or change.after.status == "processing" else "keep"

    @staticmethod
    def _lease(claim: Claim | None) -> tuple[Argument, Argument, Argument]:
        if claim is None:
            return (5, "", "")
        return (7 if claim.wheel == TRACK_WHEEL else 5, claim.member, claim.token)

    def events(self, change: Change) -> list[Event]:
        """Make the events of a change, each with a delivery where the job wants it delivered."""
        job = change.after
        ends = ("job.completed", "job.failed", "job.canceled")
        wanted = [kind for kind in change.webhooks if kind in ends or kind in job.spec.webhook_events]
        if not wanted:
            return []
        data = view(to_form(job))
        events = []
        for kind in wanted:
            body = {"type": kind, "timestamp": rfc3339(job.updated_at_ms), "data": data}
            deliver = job.spec.webhook_url is not None and kind in job.spec.webhook_events
            text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
            body_bytes = text.encode("utf-8", "replace")
            events.append(Event(new_id("evt_"), kind, body_bytes, new_id("dlv_") if deliver else ""))
        return events

    def counter(self, counter: Counter) -> tuple[str, int]:
        """Name a counter's field; whatever is no model of the models file counts as ``other``."""
        named = zip(labels_of(counter.name), counter.labels, strict=True)
        values = (self._models.label(value) if label in MODEL_LABELS else value for label, value in named)
        return "|".join((counter.name, *values)), counter.by


def _begins(change: Change) -> tuple[Argument, Argument]:
    """Give the model of the submission that begins with a change, and when that is answered at the latest."""
    attempt = change.after.current if change.event is Move.SUBMIT else None
    return (attempt.model, attempt.answered_by_ms or 0) if attempt is not None else ("", 0)


def heard_of(claim: Claim | None) -> tuple[Argument, ...]:
    """Give what became of a claim's request, in the order in which the scripts take it; '' for nothing to tell."""
    heard = claim.heard if claim is not None else None
    if claim is None or heard is None:
        return ("", "", 0, 0, 0, 0)
    return (heard.what, heard.model, int(heard.lifts), claim.number, heard.pause_ms, heard.window_ms)


def _present(note: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in note.items() if value is not None}
