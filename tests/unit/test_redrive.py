"""A redrive as the pipeline sees it: documents in order, what is done removed, what is still poison left alone."""

import asyncio
import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from memory_world import DEADLINE_S, HERE, PEERS, REGIONS, SOURCE, World
from msgspec.structs import astuple, replace
from structlog.testing import capture_logs

from replicator.adapters.memory_quarantine import MemoryQuarantine
from replicator.adapters.quarantine_file import FileQuarantine
from replicator.cli import main
from replicator.core.model import After, LinkName, Origin, SequenceNumber, ShardId, TrimHorizon, parse_origin
from replicator.core.quarantine_document import Quarantined
from replicator.redrive_command import until_over
from replicator.worker.link import LinkSettings
from replicator.worker.redrive import REDRIVE, RedriveSource, Stays, Unskimmed, redrive_name

[PEER] = PEERS[:1]
MESH = Path(__file__).parent / "good_configs" / "mesh.yaml"
LINK = LinkName(f"{SOURCE}:{PEER}")


def put_away(number: int, key: str = "k", data: bytes | None = None) -> Quarantined:
    origin = Origin(HERE, SOURCE, "17", ShardId("shardId-0"), SequenceNumber(number))
    return Quarantined(LINK, "oversize", "", origin, key, data or b'{"id":"%d"}' % number, 0, 1_700_000_000_000)


async def source_of(quarantine: MemoryQuarantine, *events: Quarantined) -> tuple[RedriveSource, Stays]:
    for event in events:
        await quarantine.put(event)
    names = sorted(await quarantine.names(LINK))
    documents = {name: await quarantine.load(name) for name in names}
    ordered = sorted(names, key=lambda name: astuple(parse_origin(documents[name].origin)))
    stays = Stays()
    return RedriveSource(quarantine, ordered, stays), stays


def test_an_origin_is_read_back_from_its_key() -> None:
    origin = Origin(HERE, SOURCE, "17", ShardId("shardId-0"), SequenceNumber(10**100), 3)
    assert parse_origin(origin.key) == origin
    with pytest.raises(ValueError, match="unpack"):
        parse_origin("a/b")


async def test_only_what_is_done_is_removed_and_a_new_owner_begins_with_the_rest() -> None:
    quarantine = MemoryQuarantine()
    source, _ = await source_of(quarantine, *[put_away(number) for number in (9, 10, 2)])
    page = await source.read(await source.open(REDRIVE, TrimHorizon()), 2)
    assert [record.data for record in page.records] == [b'{"id":"2"}', b'{"id":"9"}']
    source.done(After(page.records[0].sequence))
    await source._remove()
    assert (source.removed, len(quarantine.events)) == (1, 2)
    again = await source.read(await source.open(REDRIVE, After(page.records[0].sequence)), 9)
    assert [record.data for record in again.records] == [b'{"id":"9"}', b'{"id":"10"}']
    assert again.records[0].sequence > page.records[-1].sequence
    assert again.behind_ms == 0
    assert source.progress == ", 1 of 3 documents done [######--------------] 33%"
    source.done(After(page.records[-1].sequence))
    assert not source.is_over
    source.done(After(again.records[-1].sequence))
    await source._remove()
    assert (source.is_over, len(quarantine.events)) == (True, 0)


class Told:
    """As much of a service as `until_over` looks at: what it waits for, and how many leases it holds, look by look."""

    def __init__(self, *looks: tuple[list[str], int]) -> None:
        self._looks = list(looks)
        self._leases = 0
        self.is_over = False
        self.is_draining = asyncio.Event()
        self.progress = ", all done"

    async def run(self) -> None:
        await self.is_draining.wait()

    async def drain(self) -> None:
        self.is_draining.set()

    def ready(self) -> list[str]:
        reasons, self._leases = self._looks.pop(0)
        self.is_over = not self._looks
        return reasons

    def status(self) -> dict[str, object]:
        return {"leases": self._leases, "links": {LINK: {"state": "up", "last_error": ""}}}


async def test_who_waits_is_told_for_what_and_who_interrupts_how_far_it_came() -> None:
    told: Any = Told((["no Redis"], 0), ([], 0), ([], 1), ([], 0))
    lines = list[str]()
    await until_over(told, told, LINK, lines.append)
    waits = "waits for the lease: another one of this link is under way, or died a moment ago"
    assert lines == ["no Redis", waits, "up, all done", "what is left is done, or with another one of this link"]
    told = Told(*[([], 1)] * 1_000_000)
    running = asyncio.create_task(until_over(told, told, LINK, lines.append))
    async with asyncio.timeout(DEADLINE_S):
        while len(lines) == 4:
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert lines[4:] == ["up, all done", "stopped, all done"]


def test_a_redrive_of_nothing_does_not_look_like_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        asyncio.run(FileQuarantine(tmp_path).put(put_away(number)))
    config = tmp_path / "replicator.yaml"
    in_s3 = "quarantine: {s3_bucket: poison, s3_prefix: orders/}"
    config.write_text(MESH.read_text().replace(in_s3, f"quarantine: {{directory: {tmp_path}}}"))
    redrive = ["quarantine", "redrive", "--config", str(config), "--region", HERE, "--link", LINK]
    for how, dry in product((["--reason", "overzise"], ["--key", "c"], ["--id", "zz"]), ([], ["--dry-run"])):
        assert main([*redrive, *how, *dry]) == (1 if "--id" in how else 0)
        assert capsys.readouterr().out == f"0 of 2 documents of {LINK} match\n"


async def test_behind_what_is_still_poison_its_key_stays_in_order_where_keys_are_held() -> None:
    settings = LinkSettings(in_doubt_wait_s=0.0, backoff_base_s=0.01, on_poison="hold_key")
    quarantine = MemoryQuarantine()
    events = [put_away(1, "a", b"\xff"), put_away(2, "a"), put_away(3, "b"), put_away(4, "a")]
    source, stays = await source_of(quarantine, *events)
    world = World(regions=REGIONS[:2], shards=1, settings=settings)
    [setup] = world.service._sources
    redriven = replace(
        setup, name=redrive_name(LINK), source=source, queue=source, event_format=Unskimmed(setup.event_format)
    )
    service = world.service_of(redriven, stays)
    with capture_logs() as logs:
        task = asyncio.create_task(service.run())
        await world.until(lambda: source.is_over)
        await service.drain()
        await task
    said = [(entry["event"], entry["reason"]) for entry in logs if "reason" in entry]
    assert said == [("event.stays_in_quarantine", reason) for reason in ("not_json", "key_held", "key_held")]
    links: Any = service.status()["links"]
    assert not [name for name in links[LINK]["counts"] if name.startswith("events_quarantined_total")]
    assert world.ids(PEER) == ["3"]
    assert sorted(event.data for event in quarantine.events.values()) == sorted(
        e.data for e in events if e != events[2]
    )
    assert stays.reasons == {"not_json": 1, "key_held": 2}
    [[record]] = [world.peers[PEER].records(shard.id) for shard in world.peers[PEER].list_shards()]
    assert json.loads(record.data)["_replicator"]["origin"] == [HERE, SOURCE, "17", "shardId-0", "3", 0]
