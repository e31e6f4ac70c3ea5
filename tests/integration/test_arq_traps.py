"""What arq itself would lose or block: calls on no queue, locked for ever, or about to expire."""

from arq.constants import in_progress_key_prefix, job_key_prefix
from harness import Bench, directed, json_bytes
from walking import walk

from jobs.places import Repair
from worker.keys import ARQ_BODY, ARQ_LOCK


async def test_a_call_that_stands_on_no_queue_is_taken(bench: Bench) -> None:
    """Its id would have been blocked, and its caller waited in vain."""
    assert (ARQ_BODY.decode(), ARQ_LOCK.decode()) == (job_key_prefix, in_progress_key_prefix)
    await bench.pool.enqueue_job("generate", {"kind": "video", "input": directed()}, _job_id="lost")
    await bench.raw.delete("onysoft:jobs")
    assert await walk(bench) == {}
    assert await walk(bench, rounds=2) == {Repair.ARQ_ENTRY: 1}
    async with bench.worker():
        assert (await bench.ended("lost"))["status"] == "completed"


async def test_calls_of_others_are_left_alone(bench: Bench) -> None:
    """Another function's, one on another's queue, one that a worker of another's is at, and a pickle."""
    await bench.pool.enqueue_job("send_mail", "x", _job_id="mail", _queue_name="mail:queue")
    await bench.pool.enqueue_job("generate", {}, _job_id="theirs", _queue_name="other:jobs")
    await bench.pool.enqueue_job("generate", {}, _job_id="locked", _queue_name="nowhere")
    await bench.raw.set("arq:in-progress:locked", "1")
    await bench.raw.delete("mail:queue", "nowhere")
    await bench.raw.set("arq:job:pickled", b"\x80\x04N.")
    await bench.raw.lpush("arq:job:listed", "x")
    before = set(await bench.raw.keys())
    assert await walk(bench, rounds=3) == {}
    assert set(await bench.raw.keys()) == before


async def test_a_call_that_is_locked_for_ever_is_unlocked(bench: Bench) -> None:
    """A lock that ends by itself is its holder's, one that does not is nobody's."""
    for name in ("stuck", "held"):
        await bench.pool.enqueue_job("generate", {"kind": "video", "input": directed()}, _job_id=name)
    await bench.raw.set("arq:in-progress:stuck", "1")
    await bench.raw.set("arq:in-progress:held", "1", px=60_000)
    assert await walk(bench) == {Repair.ARQ_LOCK: 1}
    assert await bench.raw.exists("arq:in-progress:held")
    async with bench.worker():
        assert (await bench.ended("stuck"))["status"] == "completed"


async def test_a_call_that_waits_does_not_expire_unless_its_caller_asked_for_it(bench: Bench) -> None:
    """A body lives for a day by arq's default; a caller's own time-out is its wish."""
    request = {"kind": "video", "input": directed()}
    for name, more in (("waits", {}), ("asked", {"_expires": 600})):
        await bench.pool.enqueue_job("generate", {**request, "id": name}, _job_id=name, **more)
    assert await walk(bench) == {}
    call = {"t": None, "f": "generate", "a": [request], "k": {}, "et": bench.store.now_ms() - 86_000_000}
    await bench.raw.set("arq:job:waits", json_bytes(call), px=400_000)
    assert await walk(bench) == {Repair.ARQ_BODY: 1}
    assert await bench.raw.pttl("arq:job:waits") == -1
    assert await bench.raw.pttl("arq:job:asked") > 0
