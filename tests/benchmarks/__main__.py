"""``make bench``: CPU per event, in one run on one machine. For comparing within a run, not across machines."""

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from replicator.aws.signer import Credentials, Signer, body_hash
from replicator.core.formats import make_format
from replicator.core.lanes import Lanes
from replicator.core.model import EventId, Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.core.tag import Tag, TagKeys, encode_tag
from replicator.dev.clients import kinesis_client
from replicator.dev.environment import Environment
from replicator.dev.environment_config import Layout
from replicator.dev.environment_worker import leave_user_account

EVENT_BYTES = 1024
EVENTS = 20_000
ROUNDS = 5
REGIONS = ("us-east-1", "eu-west-1")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def event(number: int) -> bytes:
    body = {"id": f"e-{number}", "type": "order-placed", "payload": ""}
    body["payload"] = "x" * (EVENT_BYTES - len(json.dumps(body)))
    return json.dumps(body).encode()


def cpu_us(step: Callable[[], object], repeats: int) -> float:
    """The least CPU time of one call over several rounds, in microseconds."""
    best = float("inf")
    for _ in range(ROUNDS):
        begun_s = time.process_time()
        for _ in range(repeats):
            step()
        best = min(best, (time.process_time() - begun_s) / repeats * 1e6)
    return best


def pure_steps() -> dict[str, float]:
    """Microseconds of CPU per event (per request for the signer)."""
    json_format, data = make_format("json"), event(7)
    origin = Origin(
        Region("us-east-1"), SourceName("orders"), "17", ShardId("shardId-000000000000"), SequenceNumber(49), 0
    )
    tag = Tag(1, origin, EventId("e-7"), (Region("us-east-1"),), 1_700_000_000_000)
    raw, decoded = encode_tag(tag), json_format.decode(data)
    tagged = decoded.with_tag(raw)
    keys = TagKeys("k1", {"k1": b"secret"})
    signer = Signer("kinesis.us-east-1.amazonaws.com", "us-east-1", "kinesis", "application/x-amz-json-1.1")
    sha256, credentials = body_hash(data), Credentials("key", "secret")

    def lanes() -> None:
        queue: Lanes[int] = Lanes(lambda _: 1000)
        for number in range(500):
            queue.add(number, number)
        for key, _ in queue.take(500, 10**9, 0.0):
            queue.done(key)

    return {
        "decode an event (1 KB json)": cpu_us(lambda: json_format.decode(data), 5000),
        "decode a replica": cpu_us(lambda: json_format.decode(tagged), 5000),
        "encode its tag": cpu_us(lambda: encode_tag(tag), 5000),
        "splice the tag in": cpu_us(lambda: decoded.with_tag(raw), 20000),
        "check of the bytes": cpu_us(decoded.check, 20000),
        "sign a tag (HMAC)": cpu_us(lambda: keys.sign(tag), 5000),
        "lane: add, take, done": cpu_us(lanes, 20) / 500,
        "sign a request (SigV4, per request)": cpu_us(
            lambda: signer.headers("Kinesis_20131202.PutRecords", sha256, 1_700_000_000.0, credentials), 2000
        ),
    }


def process_cpu_s(pid: int) -> float:
    """User and system time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def put_events(url: str, region: str, stream: str) -> None:
    client = kinesis_client(url, region)
    for start in range(0, EVENTS, 500):
        records = [{"Data": event(n), "PartitionKey": f"k{n}"} for n in range(start, start + 500)]
        client.put_records(StreamName=stream, Records=records)
    client.close()


async def worker_cpu_us() -> float:
    """CPU of a worker process per forwarded event: claims, lanes, watermark, checkpoints and metrics, one peer."""
    with tempfile.TemporaryDirectory() as workdir:
        layout = Layout(regions=REGIONS, workers=1, rate_factor=1000.0)
        async with Environment(layout, Path(workdir)) as environment:
            await environment.start_workers()
            await environment.wait_ready()
            [worker] = environment.workers(REGIONS[0])
            assert worker.child is not None
            before_s = process_cpu_s(worker.child.pid)
            url = environment.regions[REGIONS[0]].ready.kinesis
            await asyncio.to_thread(put_events, url, REGIONS[0], layout.stream)
            async with asyncio.timeout(120):
                while await forwarded(environment) < EVENTS:
                    environment.check()
                    await asyncio.sleep(0.2)
            return (process_cpu_s(worker.child.pid) - before_s) / EVENTS * 1e6


async def forwarded(environment: Environment) -> int:
    [worker] = environment.workers(REGIONS[0])
    status = await environment.status(worker)
    return sum(link.counts.get("events_forwarded_total", 0) for link in status.links.values()) if status else 0


def main() -> None:
    leave_user_account()
    table = Table(
        "step", "CPU, us an event", title=f"{EVENT_BYTES}-byte events, best of {ROUNDS} rounds", title_justify="left"
    )
    results = pure_steps()
    results["a worker with every guarantee on, whole process, one peer"] = asyncio.run(worker_cpu_us())
    for name, value in results.items():
        table.add_row(name, f"{value:.2f}")
    Console(width=120).print(table)
    print(json.dumps({name: round(value, 3) for name, value in results.items()}))


if __name__ == "__main__":
    main()
