"""What an event in the idempotency window takes of Redis: memory, and commands for each batch read."""

import asyncio
from collections.abc import Mapping
from typing import Any

from redis import Redis

from tests.benchmarks.contenders import Stage, Work
from tests.benchmarks.cpu import worker
from tests.benchmarks.load import journal_begins, journal_taken
from tests.benchmarks.options import Options
from tests.benchmarks.regions import HOME, Regions
from tests.benchmarks.report import Cell, Section
from tests.benchmarks.rounds import one_round

EVENTS = 200_000


async def redis_cost(regions: Regions, options: Options) -> Section:
    rows = [await _measured(regions, peers, round(EVENTS * options.scale)) for peers in (1, 3)]
    columns = (
        "case",
        "memory, B an event and link",
        "calls a batch",
        "batches",
        "events a batch",
        "Redis CPU, us an event",
    )
    note = "A call is one round trip of the worker's; what scripts call inside is no call."
    return Section("Redis for 1 KB events, the window still whole", columns, rows, note, data=[list(r) for r in rows])


async def _measured(regions: Regions, peers: int, events: int) -> tuple[Cell, ...]:
    async with Stage(regions) as stage:
        contender = await stage.start_one(worker(Work(events, peers=peers)))
        await one_round(regions, contender)
        with Redis.from_url(contender.valkey.url) as redis:
            memory_before, cpu_before = _used(redis), _cpu_s(redis)
            redis.config_resetstat()
            await asyncio.to_thread(journal_begins, regions.url(HOME), contender.stream)
            await one_round(regions, contender)
            calls = _calls(redis.info("commandstats"))
            memory = (_used(redis) - memory_before) / events / peers
            cpu_us = (_cpu_s(redis) - cpu_before) / events * 1e6
        journal = await asyncio.to_thread(journal_taken, regions.url(HOME), contender.stream)
    batches = len(set(journal["read_ns"].values()))
    return (f"{peers} peer{'s' * (peers > 1)}", memory, calls / batches, batches, round(events / batches), cpu_us)


def _calls(stats: Mapping[str, Mapping[str, Any]]) -> int:
    """Scripts, which is all that a worker sends for its batches."""
    return sum(int(stat["calls"]) for name, stat in stats.items() if name.startswith(("cmdstat_eval", "cmdstat_fcall")))


def _used(redis: Redis) -> int:
    return int(redis.info("memory")["used_memory"])


def _cpu_s(redis: Redis) -> float:
    cpu = redis.info("cpu")
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])
