r"""Owns the names of our keys in Redis, and says what each holds and how long it lives.

``{p}`` is KEY_PREFIX. Jobs' and deliveries' keys live until the job is pruned, RETENTION_S after its end; all others
live as long as the deployment. The arq queue ``{p}:jobs`` and ``arq:*`` are arq's.

| key | type | holds |
|---|---|---|
| {p}:job:ID | hash | the record: schema rev seq status fingerprint spec state result look:N pending gone_url |
| {p}:input:ID | string | the input as canonical JSON, written once |
| {p}:timeline:ID | list | what happened to the job, a JSON line each, the newest 200 |
| {p}:deliveries-of:ID | list | ids of the job's deliveries |
| {p}:delivery:ID | hash | a delivery: event, URL, state, attempts, since which of them its schedule counts |
| {p}:index:STATUS:KIND, {p}:index:STATUS:KIND:MODEL | sorted set | job ids by sequence |
| {p}:deadlines | sorted set | jobs that have not ended by their deadline |
| {p}:quarantine | sorted set | jobs whose record can be neither read nor mended, by when that was found |
| {p}:aside:KEY | as it was | what lay in a key of ours and was not of its type; for a week |
| {p}:ended | sorted set | ended jobs by the time of their end |
| {p}:deliveries:STATE | sorted set | delivery ids by sequence |
| {p}:wheel:NAME, {p}:leases:NAME | sorted set, hash | what is due when; who holds it |
| {p}:destination:ID | hash | a destination of webhooks: name, host, how it fares; while it is in use |
| {p}:waiting:ID | sorted set | its deliveries that wait, by the time they are due |
| {p}:sending:ID | sorted set | its deliveries that are being sent, by the end of their leases |
| {p}:sending-to:HOST | sorted set | deliveries being sent to a host, by when they are answered at the latest |
| {p}:queueing-at:HOST | sorted set | destinations that found no place left at their host, by since when |
| {p}:host:HOST | hash | whether it is trusted to answer, failures in a row; for a day |
| {p}:failing | sorted set | failing destinations that have something to send, by since when |
| {p}:events | stream | one snapshot an event; trimmed to RETENTION_S, never past a pending delivery |
| {p}:counters | hash | metric counters, ``name|label|...`` |
| {p}:gate | hash | paused kinds, hold and budget of the fleet's submissions; models probed; the last trimmed event |
| {p}:pace:LANE | hash | what is known of the gateway's limit on requests |
| {p}:sent:LANE, {p}:awaited:LANE | sorted set | when submissions went out, for a minute; whose answer is awaited |
| {p}:cooldowns | hash | model -> time at which its limit resets |
| {p}:health | hash | MODEL\|failures in a row, MODEL\|ok_at_ms, MODEL\|failed_at_ms |
| {p}:workers | hash | worker's id -> what it is and when it was last alive |
| {p}:upkeep | string | the worker that walks through the keys; for 15 s |
| {p}:sequence | string | the one growing number every index is scored by |
| {p}:secret | string | the current webhook secret, made once and replaced by a rotation |
| {p}:secrets-before | sorted set | those before it -> valid until (ms); until the last of them ends |
| {p}:reply:TOKEN | list | the answer to a call of the Python client, for a minute; its mark that it has gone |
| {p}:wake | channel | announces work that another process made due |
| {p}:changed:ID | channel | announces a change of a job |

Imports the standard library only: the Python client finds its jobs by these names.
"""

from dataclasses import dataclass

# arq's own (``arq.constants``): the body of a call, and the lock of whoever is at it.
ARQ_BODY, ARQ_LOCK = b"arq:job:", b"arq:in-progress:"
TRACK_WHEEL = "track"
DELIVER_WHEEL = "deliver"


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names under one prefix."""

    prefix: str

    def job(self, job_id: str) -> str:  # noqa: D102 - the table above documents every key
        return f"{self.prefix}:job:{job_id}"

    def input(self, job_id: str) -> str:  # noqa: D102
        return f"{self.prefix}:input:{job_id}"

    def timeline(self, job_id: str) -> str:  # noqa: D102
        return f"{self.prefix}:timeline:{job_id}"

    def deliveries_of(self, job_id: str) -> str:  # noqa: D102
        return f"{self.prefix}:deliveries-of:{job_id}"

    def delivery(self, delivery_id: str) -> str:  # noqa: D102
        return f"{self.prefix}:delivery:{delivery_id}"

    def index(self, status: str, kind: str, model: str | None = None) -> str:  # noqa: D102
        return f"{self.prefix}:index:{status}:{kind}" + (f":{model}" if model is not None else "")

    def deliveries(self, state: str) -> str:  # noqa: D102
        return f"{self.prefix}:deliveries:{state}"

    def wheel(self, name: str) -> str:  # noqa: D102
        return f"{self.prefix}:wheel:{name}"

    def leases(self, name: str) -> str:  # noqa: D102
        return f"{self.prefix}:leases:{name}"

    def destination(self, destination_id: str) -> str:  # noqa: D102
        return f"{self.prefix}:destination:{destination_id}"

    def waiting(self, destination_id: str) -> str:  # noqa: D102
        return f"{self.prefix}:waiting:{destination_id}"

    def sending(self, destination_id: str) -> str:  # noqa: D102
        return f"{self.prefix}:sending:{destination_id}"

    def pace(self, lane: str) -> tuple[str, str, str]:  # noqa: D102
        return f"{self.prefix}:pace:{lane}", f"{self.prefix}:sent:{lane}", f"{self.prefix}:awaited:{lane}"

    def reply(self, token: str) -> str:  # noqa: D102
        return f"{self.prefix}:reply:{token}"

    def changed(self, job_id: str) -> str:  # noqa: D102
        return f"{self.prefix}:changed:{job_id}"

    def one(self, name: str) -> str:
        """Name a key there is only one of: events, counters, gate, cooldowns, health, workers, ended..."""
        return f"{self.prefix}:{name}"


def submit_wheel(kind: str) -> str:
    """Name the wheel of a kind's submissions."""
    return f"submit:{kind}"


def track_member(attempt: int, job_id: str) -> str:
    """Name a task on the track wheel."""
    return f"{attempt}:{job_id}"


def read_track_member(member: str) -> tuple[int, str]:
    """Read attempt number and job id back; raise ``ValueError`` for what is no such name."""
    number, _, job_id = member.partition(":")
    return int(number), job_id
