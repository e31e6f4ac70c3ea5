"""What tests of the walk through Redis share: a walk and what it repaired, a delivery that is pending, all there is."""

from collections import Counter

from harness import Bench

from jobs.destinations import Destination
from worker import actions
from worker.reconcile import Reconciler


async def walk(bench: Bench, *, rounds: int = 1) -> dict[str, int]:
    """Walk; give what was repaired, which the metrics have to tell as well."""
    before, walker, repaired = await counted(bench), Reconciler(bench.store), Counter[str]()
    for _ in range(rounds):
        repaired += await walker.run_once()
    assert await counted(bench) - before == repaired
    return dict(repaired)


async def counted(bench: Bench) -> Counter[str]:
    """Read the counters of repairs."""
    rows = await bench.store.counters()
    return Counter({row[1]: value for row, value in rows.items() if row[0] == "upkeep_repairs_total"})


async def delivery_of(bench: Bench) -> tuple[str, str, str]:
    """Make a job that ended with a delivery pending, nobody being there to send it; give job, delivery, queue."""
    job_id = await bench.submit()
    await actions.cancel(bench.store, job_id)
    [delivery] = await bench.store.outbox.of_job(job_id)
    return job_id, delivery.id, Destination.of(delivery.url).id


async def dump(bench: Bench) -> dict[bytes, bytes]:
    """Take all there is in Redis."""
    keys = await bench.raw.keys()
    async with bench.raw.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.dump(key)
        return dict(zip(keys, await pipe.execute(), strict=True))
