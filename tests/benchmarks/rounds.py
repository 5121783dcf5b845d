"""Interleaved rounds: a contender stands still (SIGSTOP) while its source is filled, then goes until all has arrived.

What counts is the CPU its processes spent meanwhile, system time included: neither the endpoints nor the filling do.
A machine whose speed changes during a run changes it for all of them.
"""

import asyncio
import time
from collections.abc import Sequence

from replicator.dev.environment_worker import status_port
from tests.benchmarks.contenders import Contender
from tests.benchmarks.load import put_bodies, put_events, records_in, spread_keys, zipf_keys
from tests.benchmarks.regions import HOME, Regions
from tests.benchmarks.status import metric

ARRIVAL_MAX_S = 300.0
POLL_S = 0.02
AFTER_S = 0.5
"""Settling and a checkpoint follow the last arrival; they belong to the work."""


async def rounds(regions: Regions, contenders: Sequence[Contender], count: int) -> None:
    """Every contender in turn, ``count`` times after one round of warming up."""
    for number in range(count + 1):
        for contender in contenders:
            cpu_us, events_per_s = await one_round(regions, contender)
            if number:
                contender.cpu_us.append(cpu_us)
                contender.events_per_s.append(events_per_s)


async def one_round(regions: Regions, contender: Contender) -> tuple[float, float]:
    """Microseconds of CPU an event, and events a second. The contender is paused before and after."""
    events = contender.spec.work.events
    await fill(regions, contender, events)
    begun_cpu_s, begun_s = contender.cpu_s(), time.monotonic()
    contender.resume()
    await arrival(regions, contender)
    took_s = time.monotonic() - begun_s
    await asyncio.sleep(AFTER_S)
    contender.pause()
    return (contender.cpu_s() - begun_cpu_s) / events * 1e6, events / took_s


async def fill(regions: Regions, contender: Contender, events: int) -> None:
    """Put the next events into its source."""
    work = contender.spec.work
    numbers = range(contender.written, contender.written + events)
    key = zipf_keys(numbers.start) if work.is_zipf else spread_keys(work.shards)
    bodies = put_bodies(contender.stream, numbers, work.size_bytes, key=key, shape=work.shape)
    await asyncio.to_thread(put_events, regions.url(HOME), HOME, bodies)
    contender.written = numbers.stop


async def arrival(regions: Regions, contender: Contender, peers: Sequence[str] | None = None) -> None:
    """Until all that was written is in the peers (in all by default). Raises TimeoutError after five minutes."""
    async with asyncio.timeout(ARRIVAL_MAX_S):
        for peer in contender.peers if peers is None else peers:
            while await _arrived(regions, contender, peer) < contender.written:
                contender.check()
                await asyncio.sleep(POLL_S)


async def _arrived(regions: Regions, contender: Contender, peer: str) -> int:
    """Events that a peer has. Of aggregated records the endpoint can't tell how many are in them, but the worker."""
    if contender.spec.link.get("aggregate"):
        port = await contender.children[0].ready(status_port)
        return int(await asyncio.to_thread(metric, port, "events_forwarded_total"))
    return await asyncio.to_thread(records_in, regions.url(peer), contender.stream)
