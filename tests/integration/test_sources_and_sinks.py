"""Every source with every sink: what is born in one region arrives in two others as the README's table says.

Each source brings its events into the hub of its region, with its worker killed in between; what sinks have is
counted there, as any consumer would read it.
"""

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from test_event_lake import LakeReader
from test_outlets import Outlet
from trial import DEADLINE_S, EAST, POLL_S, SOUTH, WEST, Trial, trial

from replicator.convergent import Writer
from replicator.dev.clients import kinesis_client
from replicator.dev.environment_config import BUS, OUTLET_BUS, OUTLET_FIFO, OUTLET_QUEUE, QUEUE_SOURCES, STOCK
from tests.cdc_records import KEYS, MAKERS
from tests.services import put_on_bus, send

pytestmark = pytest.mark.slow

README = Path(__file__).resolve().parents[2] / "README.md"
EVENTS, BATCH = 60, 10
PEERS = (WEST, SOUTH)
STANDARD, FIFO, BEHIND_BUS = QUEUE_SOURCES
CHANGES = "orders-table"
STREAMED = "dynamodb"
TABLES = {CHANGES: "orders", STREAMED: STOCK}
"""By source, the table into which its changes are put."""
HUB = "orders"
SOURCES = {
    "`kinesis`, a hub": HUB,
    "`dynamodb`, a table's changes": CHANGES,
    **{f"`cdc`, `{name}`": name for name in MAKERS},
    "`sqs`, a standard queue": STANDARD,
    "`sqs`, a FIFO queue": FIFO,
    "`sqs`, a bus's rule": BEHIND_BUS,
}
"""The README's rows, and the sources as the environment names them."""
FIFO_COLUMN = "FIFO queue"
COLUMNS = {FIFO_COLUMN: OUTLET_FIFO, "queue": OUTLET_QUEUE, "bus": OUTLET_BUS}
"""Columns of the README's whose sinks are read from a queue, and that queue."""
Found = dict[str, Counter[int]]
"""How often each of a source's events was found."""


def readme_table() -> dict[tuple[str, str], str]:
    """What the README says, by row and column."""
    text = README.read_text(encoding="utf-8")
    begin = text.index("| from a source, to a sink")
    lines = text[begin : text.index("\n\n", begin)].splitlines()
    head, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]
    return {(row[0], name): cell for row in rows for name, cell in zip(head[1:], row[1:], strict=True)}


class Region:
    """One region's services."""

    def __init__(self, running: Trial, name: str) -> None:
        self.name = name
        self.ready = running.environment.regions[name].ready

    def client(self, service: str) -> Any:
        return boto3.client(service, region_name=self.name, endpoint_url=str(self.ready.aws))

    # --- writing -----------------------------------------------------------------------------------------

    def write(self, source: str, numbers: Iterable[int]) -> None:
        """Events of one source with these numbers, told as its users would."""
        if source in (HUB, *MAKERS):
            self._to_stream(source, numbers)
        elif source == CHANGES:
            self._to_table(numbers)
        elif source == BEHIND_BUS:
            self._to_bus(numbers)
        else:
            self._to_queue(source, numbers)

    def _to_stream(self, source: str, numbers: Iterable[int]) -> None:
        client = kinesis_client(self.ready.kinesis, self.name)
        make: Callable[[int], str] = MAKERS.get(source, partial(event, source))
        if source == STREAMED:
            make = self._streamed
        records = [{"Data": make(n).encode(), "PartitionKey": str(n % KEYS)} for n in numbers]
        stream = "orders-hub" if source == HUB else source
        assert client.put_records(StreamName=stream, Records=records)["FailedRecordCount"] == 0
        client.close()

    def _streamed(self, number: int) -> str:
        """A change of the table, as Kinesis Data Streams for DynamoDB tells it."""
        stamps = {"version": Writer(self.name).version(), "awsregion": self.name}
        record = json.loads(MAKERS[STREAMED](number, {"sk": str(number), **stamps}))
        record["dynamodb"]["Keys"]["sk"] = {"S": str(number)}
        return json.dumps(record)

    def _to_table(self, numbers: Iterable[int]) -> None:
        client, writer = self.client("dynamodb"), Writer(self.name)
        for n in numbers:
            item = {"pk": {"S": f"k{n % KEYS}"}, "sk": {"S": str(n)}, "n": {"N": str(n)}}
            client.put_item(TableName="orders", **writer.put(item))

    def _to_bus(self, numbers: Iterable[int]) -> None:
        put_on_bus(self.client("events"), BUS, [event(BEHIND_BUS, n) for n in numbers])

    def _to_queue(self, source: str, numbers: Iterable[int]) -> None:
        messages = [(str(n), f"k{n % KEYS}", event(source, n)) for n in numbers]
        send(self.client("sqs"), QUEUE_SOURCES[source], messages)

    # --- reading -----------------------------------------------------------------------------------------

    def numbers(self, table: str) -> Counter[int]:
        """Of a table's items."""
        found = self.client("dynamodb").scan(TableName=table, ConsistentRead=True)["Items"]
        return Counter(int(item["n"]["N"]) for item in found)


def event(source: str, number: int) -> str:
    found = {"id": f"{source}-{number}", "type": "sold", "key": f"k{number % KEYS}", "n": number}
    return json.dumps(found)


def identity(body: str | bytes) -> tuple[str, int]:
    """Source and number of an event that has been replicated."""
    found = json.loads(body)
    detail = found.get("detail", found)
    tag = found.get("_replicator") or detail["_replicator"]
    source = tag["origin"][1]
    if "dynamodb" in detail and "raw" not in detail:
        return source, int(detail["dynamodb"]["NewImage"]["n"]["N"])
    return source if source in SOURCES.values() else HUB, (detail["raw"]["new"] if "raw" in detail else detail)["n"]


class Arrivals:
    """What the sinks of a peer have been seen to hold, by column of the README's table."""

    def __init__(self, running: Trial, region: str) -> None:
        self._region = Region(running, region)
        self._reader = running.readers[region]
        self._lake = LakeReader(running, region)
        self._outlets = {column: Outlet(running, region, queue) for column, queue in COLUMNS.items()}
        self._taken: defaultdict[str, list[str]] = defaultdict(list)

    def are_all_there(self, table: dict[tuple[str, str], str]) -> bool:
        """Whether it is time to look at the FIFO queue: moto knows no repeats of messages that were taken from it."""
        return self._outlets[FIFO_COLUMN].count() >= EVENTS * len(SOURCES) and all(
            breach.split(":")[0].endswith(f"-> {FIFO_COLUMN}") for breach in breaches(self.look(), table)
        )

    def look(self, *, fifo: bool = False) -> dict[str, Found]:
        self._reader.poll()
        for column, outlet in self._outlets.items():
            if fifo or column != FIFO_COLUMN:
                self._taken[column] += [message["Body"] for message in outlet.messages()]
        hub = [stored.data for shard in self._reader.hub() for stored in shard]
        found = {"stream": counted(hub), "lake": counted(data for _, data in self._lake.read().values())}
        found |= {column: counted(self._taken[column]) for column in COLUMNS}
        found["table"] = {source: self._region.numbers(table) for source, table in TABLES.items()}
        return found


def counted(bodies: Iterable[str | bytes]) -> Found:
    found: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for body in bodies:
        source, number = identity(body)
        found[source][number] += 1
    return found


def breaches(found: dict[str, Found], table: dict[tuple[str, str], str]) -> list[str]:
    """Where the sinks of a region do not hold what the table says."""
    wanted = set(range(EVENTS))
    said = []
    for (row, column), promise in table.items():
        seen = found[column].get(SOURCES[row], Counter())
        fits = {
            "once": set(seen) == wanted and set(seen.values()) == {1},
            "at least once": set(seen) == wanted,
            "no": not seen,
        }
        if not fits[promise]:
            said.append(f"{row} -> {column}: {promise}, but {len(seen)} of {len(wanted)}, {seen.total()} in all")
    return said


async def test_events_of_every_source_are_in_every_sink_of_the_peers_as_the_readme_says(tmp_path: Path) -> None:
    table = readme_table()
    assert {row for row, _ in table} == SOURCES.keys()
    layout = {"workers": 1, "table": "kept_equal", "queue": True, "cdc": True, "outlets": True, "lake": True}
    async with trial(tmp_path, regions=(EAST, *PEERS), **layout) as running:
        home = Region(running, EAST)
        [worker] = running.environment.workers(EAST)
        for start in range(0, EVENTS, BATCH):
            if start == EVENTS // 2:
                worker.kill()
            for source in SOURCES.values():
                await asyncio.to_thread(home.write, source, range(start, start + BATCH))
        await worker.start()
        peers = {region: Arrivals(running, region) for region in PEERS}
        end_s = time.monotonic() + DEADLINE_S
        while not all([await asyncio.to_thread(peer.are_all_there, table) for peer in peers.values()]):
            running.environment.check()
            if time.monotonic() > end_s:
                break  # and say below what is missing
            await asyncio.sleep(POLL_S)
        await asyncio.sleep(2.0)  # a second copy would come by now
        said = [each for peer in peers.values() for each in breaches(peer.look(fifo=True), table)]
        quarantined = running.environment.quarantined()
    assert not said
    assert quarantined == 0
