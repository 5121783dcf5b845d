"""What every quarantine promises: the original bytes and all that is known, durable, safe to repeat."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol, cast

import pytest
from msgspec.structs import replace
from poison_queue import opened_queue
from quiet_wire import quiet_wire

from replicator import ports
from replicator.adapters.memory_quarantine import MemoryQuarantine
from replicator.adapters.quarantine_file import FileQuarantine
from replicator.adapters.quarantine_s3 import S3Quarantine
from replicator.adapters.quarantine_sqs import SqsQuarantine
from replicator.aws.session import AwsSession
from replicator.bootstrap_quarantine import open_quarantine
from replicator.config_load import load
from replicator.core.model import LinkName, Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.core.quarantine_document import Quarantined, decode_document, document_id, key_digest
from replicator.errors import StoreUnavailable
from replicator.ports import Quarantine, QuarantineReader
from tests.simulation.ports import WireQuarantine

ORIGIN = Origin(Region("us-east-1"), SourceName("orders"), "17", ShardId("shardId-0"), SequenceNumber(10**128), 3)
EVENT = Quarantined(
    LinkName("orders:eu-west-1"), "not_json", "détail", ORIGIN, "kéy", bytes(range(256)), 2, 1_700_000_000_000
)


def reader_of(quarantine: Quarantine) -> QuarantineReader:
    """The same store for people, who in the simulator need no network for it."""
    return cast("QuarantineReader", quarantine._quarantine if isinstance(quarantine, WireQuarantine) else quarantine)


class Kept(Protocol):
    """The data of all documents that are kept."""

    async def __call__(self) -> list[bytes]: ...


@pytest.fixture(params=["memory", "simulated", "file", "s3", "queue"])
async def case(
    request: pytest.FixtureRequest, tmp_path: Path, new_name: Callable[[str], str]
) -> AsyncIterator[tuple[Quarantine, Kept]]:
    if request.param in {"memory", "simulated"}:
        memory = MemoryQuarantine()

        async def in_memory() -> list[bytes]:
            return [event.data for event in memory.events.values()]

        is_simulated = request.param == "simulated"
        yield WireQuarantine(memory, quiet_wire("quarantine"), lambda _: None) if is_simulated else memory, in_memory
        return
    if request.param == "file":

        async def in_files() -> list[bytes]:
            return [decode_document(path.read_bytes()).data for path in tmp_path.rglob("*.json")]

        yield FileQuarantine(tmp_path), in_files
        return
    if request.param == "queue":
        async with opened_queue(request.getfixturevalue("aws_url"), new_name("quarantine"), tmp_path) as queue:
            yield queue.quarantine, queue.kept
        return
    bucket = new_name("quarantine")
    async with AwsSession().client("s3", "us-east-1", request.getfixturevalue("aws_url")) as client:
        await client.create_bucket(Bucket=bucket)

        async def in_s3() -> list[bytes]:
            listed: dict[str, Any] = await client.list_objects_v2(Bucket=bucket, Prefix="poison/")
            found = []
            for entry in [e for e in listed.get("Contents", []) if e["Key"].endswith(".json")]:
                reply = await client.get_object(Bucket=bucket, Key=entry["Key"])
                found.append(decode_document(await reply["Body"].read()).data)
            return found

        yield S3Quarantine(client, bucket, "poison/", listed_max=3), in_s3


async def test_the_original_bytes_are_kept_once_however_often_they_are_put(case: tuple[Quarantine, Kept]) -> None:
    quarantine, kept = case
    await quarantine.put(EVENT)
    await quarantine.put(EVENT)
    assert await kept() == [EVENT.data]


async def test_a_document_holds_everything_known_as_plain_json(tmp_path: Path) -> None:
    await FileQuarantine(tmp_path).put(EVENT)
    [path] = tmp_path.rglob("*.json")
    document = json.loads(path.read_bytes())
    assert path.relative_to(tmp_path).parts[:4] == ("orders@eu-west-1", "2023", "11", "14")
    assert document["origin"] == ORIGIN.key
    assert (document["link"], document["reason"], document["detail"]) == (EVENT.link, EVENT.reason, EVENT.detail)
    assert (document["partition_key"], document["attempts"], document["at_ms"]) == ("kéy", 2, EVENT.at_ms)
    assert not list(tmp_path.rglob("*.new"))


async def test_a_place_that_cannot_be_written_is_unavailable_and_says_what_to_do(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StoreUnavailable, match="make it writable"):
        await FileQuarantine(blocked).put(EVENT)


async def test_a_missing_bucket_is_unavailable_and_named(aws_url: str) -> None:
    async with AwsSession().client("s3", "us-east-1", aws_url) as client:
        with pytest.raises(StoreUnavailable, match="no-such-bucket"):
            await S3Quarantine(client, "no-such-bucket", "").put(EVENT)


async def test_the_lakes_quarantine_is_in_its_bucket_of_the_region_beside_the_events(
    aws_url: str, new_name: Callable[[str], str], tmp_path: Path
) -> None:
    bucket, file = new_name("lake"), tmp_path / "replicator.yaml"
    file.write_text(
        f"""
        regions: {{us-east-1: {{endpoints: {{s3: "{aws_url}"}}}}, eu-west-1: {{}}}}
        sources: {{orders: {{stream: hub, sink: hub, lake: lake}}}}
        sinks: {{hub: {{stream: hub}}, lake: {{kind: s3, bucket: elsewhere, buckets: {{us-east-1: {bucket}}}}}}}
        quarantine: {{lake: lake, s3_prefix: poison/}}
        """
    )
    region = Region("us-east-1")
    async with AwsSession() as aws, aws.client("s3", region, aws_url) as client:
        await client.create_bucket(Bucket=bucket)
        async with open_quarantine(load(str(file), {}), region, aws) as quarantine:
            await quarantine.put(EVENT)
            assert (await quarantine.kept(EVENT.link, 1)).total == 1
        listed = await client.list_objects_v2(Bucket=bucket)
    assert [entry["Key"].startswith(f"poison/{EVENT.link}/2023/11/14/") for entry in listed["Contents"]] == [True]


LINK, OTHER = LinkName("orders:eu-west-1"), LinkName("orders:sa-east-1")


async def test_marked_keys_are_found_by_link_until_they_are_released(case: tuple[Quarantine, Kept]) -> None:
    quarantine, kept = case
    odd = "k/é\n" + "x" * 250
    assert await quarantine.held(LINK) == frozenset()
    for key in ("a", odd, "a"):
        await quarantine.hold(LINK, key)
    await quarantine.hold(OTHER, "b")
    assert await quarantine.held(LINK) == {key_digest("a"), key_digest(odd)}
    assert list(await quarantine.held_keys(LINK)) == ["a", odd]
    assert await quarantine.release(LINK, "a")
    assert not await quarantine.release(LINK, "a")
    assert not await quarantine.release(LINK, "b")
    assert await quarantine.held(LINK) == {key_digest(odd)}
    assert await quarantine.held(OTHER) == {key_digest("b")}
    assert await kept() == [], "marks are no events"


async def test_more_marks_than_a_listing_has_are_all_found(case: tuple[Quarantine, Kept]) -> None:
    quarantine, _ = case
    keys = [f"k{number}" for number in range(10)]
    for key in keys:
        await quarantine.hold(LINK, key)
    assert await quarantine.held(LINK) == {key_digest(key) for key in keys}


def put_away(number: int, link: LinkName = LINK) -> Quarantined:
    return replace(EVENT, link=link, origin=replace(ORIGIN, sub_sequence=number), data=b"%d" % number, at_ms=number)


async def test_people_see_how_many_there_are_and_the_newest(case: tuple[Quarantine, Kept]) -> None:
    quarantine, _ = case
    reader = reader_of(quarantine)
    assert await reader.kept(LINK, 10) == ports.Kept(0, [])
    for number in range(5):
        await quarantine.put(put_away(number))
    await quarantine.put(put_away(9, OTHER))
    await quarantine.hold(LINK, "a key")
    kept = await reader.kept(LINK, 2)
    assert (kept.total, len(kept.newest)) == (5, 2)
    everything = await reader.kept(LINK, 10)
    assert {document.data for document in everything.newest} == {b"0", b"1", b"2", b"3", b"4"}
    [other] = (await reader.kept(OTHER, 10)).newest
    assert (other.link, other.reason, other.origin) == (OTHER, EVENT.reason, put_away(9).origin.key)


async def test_a_document_is_found_by_how_its_id_begins_on_its_link_only(case: tuple[Quarantine, Kept]) -> None:
    quarantine, _ = case
    reader = reader_of(quarantine)
    await quarantine.put(put_away(1))
    await quarantine.put(put_away(2))
    wanted = document_id(put_away(2).origin.key)
    assert [document.data for document in await reader.find(LINK, wanted[:12])] == [b"2"]
    assert len(await reader.find(LINK, "")) == 2
    assert await reader.find(OTHER, wanted) == []


@pytest.mark.parametrize("place", ["file", "s3"])
async def test_what_is_no_document_is_named(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if place == "file":
        (tmp_path / "orders@eu-west-1").mkdir()
        (tmp_path / "orders@eu-west-1" / "odd.json").write_text("[]")
        with pytest.raises(StoreUnavailable, match=r"odd\.json is no document of ours"):
            await FileQuarantine(tmp_path).kept(LINK, 1)
        return
    async with AwsSession().client("s3", "us-east-1", request.getfixturevalue("aws_url")) as client:
        await client.create_bucket(Bucket="odd-documents")
        await client.put_object(Bucket="odd-documents", Key=f"{LINK}/odd.json", Body=b"[]")
        with pytest.raises(StoreUnavailable, match=r"odd\.json is no document of ours"):
            await S3Quarantine(client, "odd-documents", "").kept(LINK, 1)


async def test_documents_are_loaded_and_removed_by_name_on_their_link_only(case: tuple[Quarantine, Kept]) -> None:
    """What a queue holds has names when it was brought beside."""
    quarantine, kept = case
    reader = reader_of(quarantine)
    for number in range(3):
        await quarantine.put(put_away(number))
    await quarantine.put(put_away(1, OTHER))
    await quarantine.hold(LINK, "k")
    for link in (LINK, OTHER) if isinstance(quarantine, SqsQuarantine) else ():
        await quarantine.bring(link, lambda _: True, is_dry=False)
    names = {name: await reader.load(name) for name in await reader.names(LINK)}
    assert sorted(document.data for document in names.values()) == sorted(put_away(n).data for n in range(3))
    [gone] = [name for name, document in names.items() if document.data == put_away(1).data]
    await reader.remove(gone)
    await reader.remove(gone)
    assert set(await reader.names(LINK)) == names.keys() - {gone}
    assert len(await reader.names(OTHER)) == 1
    assert len(await kept()) == 3
