"""Records as earlier versions have written them, by their schema: today's worker takes them to their end."""

import json
from typing import Any

import pytest
from harness import Bench, directed, eventually

from worker.record import SCHEMA

SPEC = {
    "kind": "video", "models": ["veo3", "sora-2"], "fingerprint": "ab" * 32, "deadline_ms": 172_800_000,
    "max_attempts": 5, "on_unknown_submit": "retry", "webhook_url": None, "webhook_events": ["job.completed"],
    "metadata": {"customer": 77},
}  # fmt: skip
STATE = {
    "round": 1, "model_index": 0, "attempts": [], "deferrals": 0, "next_action_at_ms": None, "completed_at_ms": None,
    "failure": None,
}  # fmt: skip
FAILURE = {
    "code": "server_error", "category": "retryable", "action": "retry", "http_status": 500, "gateway_code": None,
    "message": "Server error", "rule": "submit_5xx",
}  # fmt: skip


def attempt(**more: Any) -> dict[str, Any]:
    """Make an attempt with what the first version knew of one."""
    made = {
        "number": 1,
        "model": "veo3",
        "model_index": 0,
        "round": 1,
        "key": "order/1.1.0",
        "polls": 3,
        "counted": True,
    }
    return {**made, **more}


# schema -> where the job stands -> what its record holds beside the spec; times are counted from now.
RECORDS: dict[int, dict[str, dict[str, Any]]] = {
    1: {
        "queued": {"state": STATE},
        "queued, with what was dropped since": {"state": {**STATE, "unknown_resends": 0}},
        "waiting": {
            "state": {
                **STATE, "deferrals": 1, "failure": FAILURE,
                "attempts": [attempt(started_at_ms=-9000, ended_at_ms=-8000, outcome="refused", failure=FAILURE)],
            }
        },
        "submitting": {"state": {**STATE, "attempts": [attempt(started_at_ms=-9000)]}},
        "processing": {
            "state": {**STATE, "attempts": [attempt(started_at_ms=-9000, task_id="TASK")]},
            "look:1": {"polls": 3, "refused": 1, "doubt": None, "doubts": 0, "doubted_at_ms": 0},
        },
        "processing, looked at by a later one": {
            "state": {
                **STATE,
                "attempts": [attempt(started_at_ms=-9000, task_id="TASK", answered_by_ms=-100, partial=None)],
            },
            "look:1": {"polls": 3, "refusal": {"at_ms": -5, "code": "x", "rule": "y"}, "unheard_of": 1},
        },
    }
}  # fmt: skip
CASES = [(schema, standing) for schema, records in RECORDS.items() for standing in records]


def dated(value: Any, now_ms: int) -> Any:
    """Turn times that are counted from now into real ones."""
    match value:
        case dict():
            return {
                name: now_ms + part
                if name.endswith("_ms") and isinstance(part, int) and part < 0
                else dated(part, now_ms)
                for name, part in value.items()
            }
        case list():
            return [dated(part, now_ms) for part in value]
    return value


@pytest.mark.parametrize(("schema", "standing"), CASES)
async def test_older_records_go_on_to_their_end(bench: Bench, schema: int, standing: str) -> None:
    """Wherever a job stood when its worker was replaced, it completes, and its record is of today's schema then."""
    task = await bench.submit(id="other", input=directed())
    async with bench.worker():
        task_id = (await bench.ended(task))["task_id"]
    status, now_ms = standing.partition(",")[0], bench.store.now_ms()
    parts = dated(RECORDS[schema][standing], now_ms)
    parts["state"] |= {"updated_at_ms": now_ms - 9000, "deadline_at_ms": now_ms + 172_800_000}
    for each in parts["state"]["attempts"]:
        each.update({"task_id": task_id} if "task_id" in each else {})
    spec = {"id": "order", "created_at_ms": now_ms - 10_000, **SPEC}
    record = {
        "schema": schema, "seq": 1, "rev": "first", "status": status, "fingerprint": SPEC["fingerprint"],
        "spec": json.dumps(spec), **{name: json.dumps(part) for name, part in parts.items()},
    }  # fmt: skip
    await bench.raw.hset("onysoft:job:order", mapping=record)
    await bench.raw.set("onysoft:input:order", json.dumps(directed()))
    for index in (f"index:{status}:video", f"index:{status}:video:veo3"):
        await bench.raw.zadd(f"onysoft:{index}", {"order": 1})
    await bench.raw.zadd("onysoft:deadlines", {"order": now_ms + 172_800_000})
    wheel, member = ("track", "1:order") if status == "processing" else ("submit:video", "order")
    await bench.raw.zadd(f"onysoft:wheel:{wheel}", {member: now_ms})
    async with bench.worker():
        done = await bench.ended("order")
    assert (done["status"], done["metadata"]) == ("completed", {"customer": 77})
    assert int(await bench.raw.hget("onysoft:job:order", "schema")) == SCHEMA
    assert await bench.raw.zrange("onysoft:index:completed:video", 0, -1) == [b"order", b"other"]

    async def tidy() -> bool:
        return not await bench.raw.exists(f"onysoft:index:{status}:video", "onysoft:deadlines")

    await eventually(tidy)


def test_every_older_schema_has_its_records() -> None:
    """Whoever raises the schema leaves behind what records of the one before look like."""
    assert sorted(RECORDS) == list(range(1, SCHEMA))
