"""Events of a table: into their own region's hub first, from there to the peers, under their own origin."""

import json

import pytest
from test_changes import HERE, RULES, THERE, record, text
from test_prepare import KEYS, Clock

from replicator.core.changes import ChangeFormat
from replicator.core.formats import Format, JsonFormat
from replicator.core.model import Record, Region, ShardId, SourceName
from replicator.core.routing import FORWARD, Drop, HomeRouter, Router
from replicator.core.tag import TagKeys, decode_tag
from replicator.core.topology import Topologies, compile_generation, mesh
from replicator.ports import Page
from replicator.worker.prepare import Birthplace, Prepared, Preparer, sender_and_origin

TABLE = Birthplace(HERE, SourceName("orders-table"), "1600000000000", ShardId("shardId-00000001-abc"))
HUB = Birthplace(HERE, SourceName("orders"), "1700000000000", ShardId("shardId-000000000000"))
ROUTES = Topologies(compile_generation(1, (HERE, THERE), mesh((HERE, THERE))))


def preparer_of(place: Birthplace, event_format: Format, keys: TagKeys | None = None) -> Preparer:
    return Preparer(
        birthplace=place,
        event_format=event_format,
        known_regions=frozenset((HERE, THERE)),
        generation_at=ROUTES.generation_at,
        keys=keys,
        clock=Clock(),
        is_home=place is TABLE,
    )


def prepared_by(preparer: Preparer, data: bytes) -> Prepared:
    [prepared] = preparer.prepare(Page((Record(data, "k", "7", 4321),), None, 0))
    return prepared


def in_its_hub(keys: TagKeys | None = None) -> bytes:
    preparer = preparer_of(TABLE, ChangeFormat(RULES), keys)
    prepared = prepared_by(preparer, record(None, {"a": text("1")}))
    assert prepared.route is not None
    assert HomeRouter().decide(prepared.route) == FORWARD
    return preparer.entry(prepared).data


@pytest.mark.parametrize("keys", [None, KEYS])
def test_an_event_of_a_table_leaves_its_hub_under_its_own_origin_and_id(keys: TagKeys | None) -> None:
    stored = in_its_hub(keys)
    waiting = decode_tag(json.dumps(json.loads(stored)["_replicator"]).encode())
    assert (waiting.path, waiting.sender) == ((), HERE)
    hub = preparer_of(HUB, JsonFormat("id"), keys)
    prepared = prepared_by(hub, stored)
    assert prepared.poison is None
    assert prepared.route is not None
    assert Router(ROUTES, HERE, THERE).decide(prepared.route) == FORWARD
    left = json.loads(hub.entry(prepared).data)
    tag = decode_tag(json.dumps(left.pop("_replicator")).encode())
    assert (tag.origin, tag.event_id, tag.path) == (waiting.origin, waiting.event_id, (HERE,))
    assert tag.origin.source == TABLE.source
    assert left == {key: value for key, value in json.loads(stored).items() if key != "_replicator"}
    if keys is not None:
        keys.verify(waiting)
        keys.verify(tag)


def test_what_has_left_never_enters_its_region_again() -> None:
    hub = preparer_of(HUB, JsonFormat("id"))
    left = hub.entry(prepared_by(hub, in_its_hub())).data
    returned = prepared_by(hub, left).route
    assert returned is not None
    assert isinstance(Router(ROUTES, HERE, THERE).decide(returned), Drop)


def test_an_event_that_has_not_left_another_region_is_poison_here() -> None:
    stored = in_its_hub().replace(HERE.encode(), THERE.encode())
    prepared = prepared_by(preparer_of(HUB, JsonFormat("id")), stored)
    assert prepared.poison is not None
    assert prepared.poison.reason == "malformed_tag"


def test_who_reads_the_hub_back_finds_what_the_table_told() -> None:
    assert sender_and_origin(ChangeFormat(RULES))(in_its_hub()) == (HERE, TABLE.of(Record(b"", "k", "7", 0)))


def test_a_change_that_is_not_told_is_dropped_with_its_reason() -> None:
    item = {"a": text("1")}
    prepared = prepared_by(preparer_of(TABLE, ChangeFormat(RULES)), record(item, item))
    assert prepared.route is not None
    assert HomeRouter().decide(prepared.route) == Drop("metadata_only")
    assert Router(ROUTES, HERE, Region(THERE)).decide(prepared.route) == Drop("metadata_only")
