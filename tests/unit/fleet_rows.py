"""Lease rows as a large fleet leaves them: names as ECS and Kinesis give them, epochs and beats as they come."""

import random

from replicator.core.model import Lease, ShardId, SourceName


def worker_names(count: int) -> list[str]:
    return [f"ip-10-0-{number // 250}-{number % 250}.ec2.internal-7-{number:06x}" for number in range(count)]


def fleet_rows(shards: int, workers: int, seed: int = 1) -> list[Lease]:
    rng = random.Random(seed)
    names = worker_names(workers)
    return [
        Lease(
            SourceName("orders"),
            ShardId(f"shardId-{number:012d}"),
            (),
            "1763899200000",
            rng.choice(names),
            rng.randrange(1, 200),
            rng.randrange(1, 10**6),
            None,
            {},
        )
        for number in range(shards)
    ]
