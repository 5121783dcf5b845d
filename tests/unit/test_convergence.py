"""Versions, and that all regions end equal: any writers, any clocks, any order of arrival, anything twice."""

import json
from typing import Any

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st
from table_world import KEEP_MS, KEYS, Table, World, holds

from replicator.convergent import CONDITION, KEEP_S, Writer
from replicator.core.convergence import (
    CLOCK_MARGIN_MS,
    CONFLICT,
    SUPERSEDED,
    Rule,
    condition,
    grave_of,
    make_version,
    placeholders,
    version_of,
    written_ms,
)
from replicator.core.model import Region
from replicator.core.table_changes import TableRules, write_of
from replicator.errors import Refused

EAST, WEST, SOUTH = "us-east-1", "eu-west-1", "ap-southeast-2"
REGIONS = (EAST, WEST, SOUTH)
NOW_MS = 1_800_000_000_000
NOW_S = NOW_MS // 1000
K = {"pk": {"S": "k"}}


def writer(region: str, *, behind_s: float = 0, **more: Any) -> Writer:
    return Writer(region, now_s=lambda: NOW_S - behind_s, **more)


def item(version: str, region: str, **attributes: Any) -> dict[str, Any]:
    return {**K, "version": {"S": version}, "awsregion": {"S": region}, **attributes}


def changed(new: dict[str, Any] | None, old: dict[str, Any] | None = None, at_s: int = NOW_S, **more: Any) -> bytes:
    images = {name: image for name, image in (("NewImage", new), ("OldImage", old)) if image is not None}
    names = {(True, False): "INSERT", (True, True): "MODIFY", (False, True): "REMOVE"}
    change = {"Keys": K, "SequenceNumber": "1", "ApproximateCreationDateTime": at_s, **images}
    return json.dumps({"eventName": names[new is not None, old is not None], "dynamodb": change, **more}).encode()


# --- versions ------------------------------------------------------------------------------------------------------

versions = st.builds(
    make_version, st.integers(0, 10**15 - 1), st.sampled_from([*REGIONS, "us-east-10"]), st.integers(0, 10**6 - 1)
)


@given(versions, versions)
def test_text_compares_as_time_region_and_counter_and_a_grave_stands_right_above_its_version(a: str, b: str) -> None:
    def parts(version: str) -> tuple[str, ...]:
        ms, region, counter = version.split(":")
        return ms, f"{region}:", counter

    assert (a < b) == (parts(a) < parts(b))
    assert a < grave_of(a)
    if a < b:
        assert grave_of(a) < b
        assert grave_of(a) < grave_of(grave_of(a)) < b


@pytest.mark.parametrize(("ms", "region", "counter"), [(-1, EAST, 0), (10**15, EAST, 0), (0, "", 0), (0, EAST, 10**6)])
def test_what_has_no_place_in_a_version_is_refused(ms: int, region: str, counter: int) -> None:
    with pytest.raises(ValueError, match="no version can be made"):
        make_version(ms, region, counter)


numbers = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-999, max_value=999)
texts = st.text(st.sampled_from("aä\u20ac\U0001f600\uffff"), max_size=2)
ranked = numbers.map(lambda n: {"N": str(n)}) | texts.map(lambda text: {"S": text})
images = st.fixed_dictionaries(
    {"priority": ranked, "revision": ranked, "awsregion": st.sampled_from(REGIONS).map(lambda r: {"S": r})}
)


@given(images, images)
def test_what_python_finds_greater_dynamodb_does_and_values_of_two_types_never_are(
    one: dict[str, Any], two: dict[str, Any]
) -> None:
    rule = Rule(order=("priority", "revision"))
    mine, stored = version_of(rule, one), version_of(rule, two)
    assert mine is not None
    assert stored is not None
    if not mine.compares(stored):
        return  # moto compares what DynamoDB does not
    names, values = placeholders(rule, mine.values)
    said = holds(condition(3), names, values, {**K, **two})
    assert said == mine.is_above(stored)
    assert holds(condition(3), names, values, None)


def test_an_item_without_a_sound_version_has_none() -> None:
    sound = item(make_version(1, EAST, 0), EAST)
    assert version_of(Rule(), sound) is not None
    for broken in (
        {**sound, "version": {"S": "yesterday"}},
        {**sound, "version": {"N": "5"}},
        {**sound, "awsregion": {"S": WEST}},
        {**sound, "awsregion": {"NULL": True}},
        K,
    ):
        assert version_of(Rule(), broken) is None
    assert version_of(Rule(), item(grave_of(make_version(1, EAST, 0)), WEST)) is not None


# --- all regions end equal -----------------------------------------------------------------------------------------

KEYS_OF_TEST = ("a", "b")
steps = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(REGIONS), st.sampled_from(KEYS_OF_TEST), st.booleans()),
    st.tuples(st.just("delete"), st.sampled_from(REGIONS), st.sampled_from(KEYS_OF_TEST), st.booleans()),
    st.tuples(st.just("remove"), st.sampled_from(REGIONS), st.sampled_from(KEYS_OF_TEST), st.booleans()),
    st.tuples(st.just("tick"), st.sampled_from(REGIONS), st.sampled_from(KEYS_OF_TEST), st.booleans()),
    st.tuples(st.just("send"), st.sampled_from(REGIONS), st.sampled_from(KEYS_OF_TEST), st.booleans()),
)
skews = st.fixed_dictionaries({region: st.sampled_from([0, 0, 3, -2]) for region in REGIONS})


class Clocks:
    """Of each region in ms, that of one is that of another more or less the skew; they go on by ticks only."""

    def __init__(self, skew: dict[str, int]) -> None:
        self.ms = {region: NOW_MS + by for region, by in skew.items()}

    def of(self, region: str) -> Any:
        return lambda: self.ms[region] / 1000


Step = tuple[str, str, str, bool]


def acted(world: World, clocks: Clocks, writers: dict[str, Writer], step: Step, number: int) -> int:
    """How many writes were made by applications."""
    what, region, key, flag = step
    table = world.tables[region]
    over = table.items.get(key) if flag else None
    match what:
        case "put":
            body = {"pk": {"S": key}, "n": {"N": str(number)}}
            return table.put(writers[region].put(body, over=over))
        case "delete":
            return table.put(writers[region].delete({"pk": {"S": key}}, over=over))
        case "remove":
            was_there = key in table.items
            table.remove(key)
            return was_there
        case "tick":
            clocks.ms[region] += 1
        case "send":
            for here, peer in world.links():
                if here == region:
                    world.deliver(here, peer, key, again=2 if flag else 0)
    return 0


@given(st.lists(steps, max_size=30), skews)
@example([("put", EAST, "a", False), ("remove", EAST, "a", False)], dict.fromkeys(REGIONS, 0))
@example(
    [
        ("put", WEST, "a", False),  # older, and still on its way when the next one is removed
        ("tick", EAST, "a", False),
        ("put", EAST, "a", False),
        ("remove", EAST, "a", False),
        ("send", WEST, "a", False),
    ],
    dict.fromkeys(REGIONS, 0),
)
def test_all_regions_end_equal_and_nothing_goes_round(script: list[Step], skew: dict[str, int]) -> None:
    """Puts, soft deletions and removals in three regions, over what is known there or blindly; clocks stand still, run
    apart, go behind; events are told again."""
    world, clocks = World(REGIONS), Clocks(skew)
    writers = {region: Writer(region, now_s=clocks.of(region)) for region in REGIONS}
    written = removed = 0
    for number, step in enumerate(script):
        made = acted(world, clocks, writers, step, number)
        written += made
        removed += made if step[0] == "remove" else 0
    world.settle()
    first, *others = (table.items for table in world.tables.values())
    assert all(other == first for other in others)
    told = sum(len(table.told) for table in world.tables.values())
    # Each write is told by its own region; a removal's grave once more by each region that put it, or a greater one.
    assert written <= told <= written + removed * len(REGIONS) ** 2
    if not removed:
        assert told == written
    losses = [lost.reason for table in world.tables.values() for lost in table.outcomes if lost is not None]
    event("conflicts" if CONFLICT in losses else "no conflict")
    event("removals" if removed else "no removal")


@given(
    st.lists(st.tuples(st.sampled_from(REGIONS), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_an_order_of_ones_own_converges_whatever_comes_first(writes: list[tuple[str, int, int]], rng: Any) -> None:
    """Priority before revision; equal ones of two regions are told apart by the region."""
    rule = Rule(order=("priority", "revision"))
    world = World(REGIONS, rule)
    for number, (region, priority, revision) in enumerate(writes):
        body = {
            "pk": {"S": "k"},
            "priority": {"N": str(priority)},
            "revision": {"N": str(revision)},
            "awsregion": {"S": region},
            "n": {"N": str(number)},
        }
        version = version_of(rule, body)
        assert version is not None
        names, values = placeholders(rule, version.values)
        world.tables[region].put(
            {
                "Item": body,
                "ConditionExpression": condition(3),
                "ExpressionAttributeNames": names,
                "ExpressionAttributeValues": values,
            }
        )
        link = rng.choice(world.links())
        world.deliver(*link, "k", again=rng.randint(0, 2))
    world.settle()
    first, *others = (table.items for table in world.tables.values())
    assert all(other == first for other in others)


def test_of_two_writes_at_once_the_loser_is_a_conflict_where_the_winner_stands() -> None:
    world = World((EAST, WEST))
    assert world.tables[EAST].put(writer(EAST).put({**K, "of": {"S": EAST}}))
    assert world.tables[WEST].put(writer(WEST).put({**K, "of": {"S": WEST}}))
    world.settle()
    assert [table.items["k"]["of"]["S"] for table in world.tables.values()] == [EAST, EAST]  # us after eu
    [lost] = world.tables[EAST].outcomes
    assert lost is not None
    assert lost.reason == CONFLICT
    assert world.tables[WEST].outcomes == []


def test_a_change_that_comes_again_is_no_conflict_and_changes_nothing() -> None:
    world, east = World((EAST, WEST)), writer(EAST)
    for number in range(3):
        assert world.tables[EAST].put(east.put({**K, "n": {"N": str(number)}}))
    for _ in range(3):
        world.deliver(EAST, WEST, "k", again=2)
    outcomes = [lost and lost.reason for lost in world.tables[WEST].outcomes]
    assert outcomes == [None, SUPERSEDED, None, None][: len(outcomes)] or set(outcomes) == {None, SUPERSEDED}
    assert CONFLICT not in outcomes
    assert world.tables[WEST].told == []


# --- tombstones ----------------------------------------------------------------------------------------------------


def purged(now_ms: int) -> Table:
    """A table in which a tombstone stood until its time to live was over."""
    table = Table(WEST, Rule(), now_ms)
    table.put(writer(WEST).delete(K))
    expires = int(table.items["k"]["expires"]["N"])
    assert expires * 1000 >= NOW_MS + KEEP_MS
    table.now_ms = expires * 1000
    table.remove("k", by_time_to_live=True)
    assert [json.loads(data)["eventName"] for _, data in table.told] == ["INSERT"]
    return table


def test_what_arrives_after_tombstones_of_its_time_are_gone_is_a_conflict_where_no_item_stands() -> None:
    table = purged(NOW_MS)
    older = changed(item(make_version(NOW_MS - 1, EAST, 0), EAST))
    lost = table.apply(older)
    assert lost is not None
    assert lost.reason == CONFLICT
    assert "too late" in lost.detail
    assert table.items == {}
    # Where an item stands its version decides, however late.
    table.put(writer(WEST, behind_s=100).put(K))
    assert table.apply(older) is None
    assert table.items["k"]["awsregion"]["S"] == EAST


def test_what_could_have_met_a_tombstone_is_late_before_the_tombstone_goes() -> None:
    """With a margin for clocks: there is no moment at which it is taken here and refused there."""
    version_ms = NOW_MS - 1
    for at_ms, is_late in (
        (version_ms + KEEP_MS - CLOCK_MARGIN_MS, False),
        (version_ms + KEEP_MS - CLOCK_MARGIN_MS + 1, True),
    ):
        rules = TableRules("orders", Region(WEST), Rule(), KEEP_MS)
        asked = write_of(changed(item(make_version(version_ms, EAST, 0), EAST)), rules, KEYS, at_ms)
        assert asked.must_exist is is_late


def test_a_removal_is_put_as_a_grave_that_is_told_to_the_region_that_removed_and_no_further() -> None:
    world = World((EAST, WEST))
    world.tables[EAST].put(writer(EAST).put(K))
    world.settle()
    world.tables[EAST].remove("k")
    world.settle()
    grave = world.tables[WEST].items["k"]
    assert grave == world.tables[EAST].items["k"]
    assert writer(EAST).is_deleted(grave)
    assert int(grave["expires"]["N"]) * 1000 >= NOW_MS + KEEP_MS
    assert [len(table.told) for table in world.tables.values()] == [2, 1]
    assert world.tables[EAST].put(writer(EAST, behind_s=-1).put({**K, "again": {"BOOL": True}}))
    world.settle()
    assert world.tables[WEST].items == world.tables[EAST].items
    assert not writer(WEST).is_deleted(world.tables[WEST].items["k"])


# --- what is not convergent ----------------------------------------------------------------------------------------

SOUND = item(make_version(NOW_MS, EAST, 0), EAST)
WRONG: list[tuple[str, bytes, str, str]] = [
    ("no version", changed({**K, "n": {"N": "1"}}), "not_convergent", "has no version in version and awsregion"),
    ("written over itself", changed({**SOUND, "n": {"N": "1"}}, SOUND), "not_convergent", "which is not below it"),
    (
        "written over a later one",
        changed(SOUND, item(make_version(NOW_MS + 1, WEST, 0), WEST)),
        "not_convergent",
        "which is not below it",
    ),
    (
        "tombstone too short",
        changed({**SOUND, "deleted": {"BOOL": True}, "expires": {"N": str(NOW_S + 60)}}),
        "not_convergent",
        "keep them for tombstones_s",
    ),
    ("removed without version", changed(None, K), "not_convergent", "the removed item has no version"),
    (
        "time to live",
        changed(None, SOUND, userIdentity={"type": "Service", "principalId": "dynamodb.amazonaws.com"}),
        "refused_by_peer",
        "ttl_deletes: ignore",
    ),
    ("another event", b'{"_replicator":{},"id":"e-1","type":"order-created"}', "refused_by_peer", "mode raw"),
    ("no JSON", b"\xff", "refused_by_peer", "mode raw"),
    ("other keys", changed(SOUND).replace(b'"Keys": {"pk"', b'"Keys": {"id"'), "refused_by_peer", "has the keys pk"),
]


@pytest.mark.parametrize(("data", "reason", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_can_not_converge_is_refused_with_what_to_do(data: bytes, reason: str, message: str) -> None:
    with pytest.raises(Refused, match=message) as caught:
        Table(WEST, Rule(), NOW_MS).apply(data)
    assert caught.value.reason == reason


def test_a_local_update_that_leaves_anothers_stamp_alone_is_told_and_found() -> None:
    world = World((EAST, WEST))
    east, west = world.tables.values()
    assert east.put(writer(EAST).put(K))
    world.settle()
    assert (len(east.told), west.told) == (1, [])
    assert west.put({**writer(WEST, behind_s=-1).put(K), "Item": {**west.items["k"], "n": {"N": "1"}}})
    assert len(west.told) == 1
    with pytest.raises(Refused, match="which is not below it"):
        world.settle()


def test_two_items_of_one_version_and_a_stored_one_without_are_told() -> None:
    table = Table(WEST, Rule(), NOW_MS)
    table.items["k"] = {**SOUND, "set": {"SS": ["b", "a"]}}
    assert table.apply(changed({**SOUND, "set": {"SS": ["a", "b"]}})) is None
    with pytest.raises(Refused, match="two different items") as caught:
        table.apply(changed({**SOUND, "set": {"SS": ["a"]}}))
    assert caught.value.reason == "not_convergent"
    table.items["k"] = {**SOUND, "version": {"S": "z"}}
    with pytest.raises(Refused, match="what is stored has no version"):
        table.apply(changed(SOUND))


def test_an_item_from_before_versions_is_replaced() -> None:
    table = Table(WEST, Rule(), NOW_MS)
    table.items["k"] = {**K, "old": {"BOOL": True}}
    assert table.apply(changed(SOUND)) is None
    assert table.items["k"] == SOUND


def test_an_order_of_ones_own_has_no_place_for_removals() -> None:
    rule = Rule(order=("revision",))
    removed = {**K, "revision": {"N": "5"}, "awsregion": {"S": EAST}}
    with pytest.raises(Refused, match="delete softly"):
        Table(WEST, rule, NOW_MS).apply(changed(None, removed))


# --- the writer ----------------------------------------------------------------------------------------------------


def test_a_writer_is_above_what_it_follows_whatever_the_clocks_say() -> None:
    table = Table(EAST, Rule(), NOW_MS)
    assert table.put(writer(WEST, behind_s=-60).put(K))
    late = writer(EAST, behind_s=3600)
    assert not table.put(late.put(K))
    assert table.put(late.put(K, over=table.items["k"]))
    assert table.put(late.delete(K, over=table.items["k"]))
    stored = table.items["k"]["version"]["S"]
    # Its own time did not follow: another key is written at its own clock's.
    assert written_ms(late.version()) == NOW_MS - 3_600_000
    assert written_ms(stored) == NOW_MS + 60_002


def test_versions_of_one_writer_grow_while_its_clock_stands_or_goes_back() -> None:
    clock = iter([5.0, 5.0, 5.0, 4.0, 6.0, 5.9])
    one = Writer(EAST, now_s=lambda: next(clock))
    made = [one.version() for _ in range(6)]
    assert made == sorted(set(made))
    assert made[0] == "000000000005000:us-east-1:000000"


def test_the_arguments_are_those_of_boto3_for_clients_and_for_resources() -> None:
    put = writer(EAST).put({**K, "deleted": {"BOOL": True}, "expires": {"N": "1"}})
    version = make_version(NOW_MS, EAST, 0)
    assert put == {
        "Item": item(version, EAST),
        "ConditionExpression": CONDITION,
        "ExpressionAttributeNames": {"#version": "version"},
        "ExpressionAttributeValues": {":version": {"S": version}},
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    plain = writer(EAST, plain=True)
    deleted = plain.delete({"pk": "k"}, over={"version": make_version(NOW_MS + 5, WEST, 0)})
    assert deleted["Item"] == {
        "pk": "k",
        "deleted": True,
        "expires": NOW_S + KEEP_S + 1,
        "version": make_version(NOW_MS + 6, EAST, 0),
        "awsregion": EAST,
    }
    assert plain.is_deleted(deleted["Item"])
    assert plain.is_deleted(None)
    assert not plain.is_deleted({"pk": "k"})


@pytest.mark.parametrize("precision", ["MILLISECOND", "MICROSECOND"])
def test_a_removal_that_came_over_kinesis_leaves_the_same_grave_as_one_of_the_tables_own_stream(precision: str) -> None:
    """The two feeds tell the time in other units, and a grave stays by that time."""
    rules = TableRules("t", Region(WEST), Rule(), KEEP_MS)
    removed = item(make_version(NOW_MS - 1000, EAST, 0), EAST)
    told = json.loads(changed(None, removed))
    del told["dynamodb"]["SequenceNumber"]
    told["dynamodb"]["ApproximateCreationDateTime"] = NOW_MS * (1000 if precision == "MICROSECOND" else 1)
    told["dynamodb"]["ApproximateCreationDateTimePrecision"] = precision
    own, streamed = [
        write_of(data, rules, frozenset(K), NOW_MS) for data in (changed(None, removed), json.dumps(told).encode())
    ]
    assert own == streamed
    assert streamed.item["expires"] == {"N": str((NOW_MS + KEEP_MS) // 1000)}
