"""The judge counts exactly what was done to the data: removed, repeated, swapped, looped, forged, altered."""

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from replicator.dev.checker import Hubs, Stored, Verdict, Written, judge
from replicator.dev.checker_proof import Place, prove, removed, repeated, swapped
from replicator.dev.checker_reading import parents_first

REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-2")
KEYS = ("hot", "warm", "cold")
PER_HOME = 30


def event(home: str, n: int) -> Written:
    key = KEYS[n % len(KEYS)]
    body = {"id": f"{home}-{n}", "home": home, "key": key, "key_seq": n // len(KEYS), "payload": "x"}
    return Written(f"{home}-{n}", home, key, json.dumps(body).encode())


def replica(written: Written, *path: str) -> Stored:
    """As a worker would store it, ``path`` after the home."""
    tag = json.dumps({"v": 1, "id": written.id, "path": [written.home, *path]}).encode()
    return Stored(b'{"_replicator":' + tag + b"," + written.data[1:], written.key)


def original(written: Written) -> Stored:
    return Stored(written.data, written.key)


LEDGER = [event(home, n) for n in range(PER_HOME) for home in REGIONS]


def clean_hubs(ledger: Sequence[Written] = LEDGER) -> dict[str, list[list[Stored]]]:
    """Every hub with all events, in two shards by key."""
    hubs: dict[str, list[list[Stored]]] = {}
    for region in REGIONS:
        hubs[region] = [[], []]
        for written in ledger:
            stored = original(written) if written.home == region else replica(written)
            hubs[region][written.key == "hot"].append(stored)
    return hubs


def faults(verdict: Verdict) -> dict[str, int]:
    return {name: count for name, count in verdict.faults().items() if count}


def verdict_of(hubs: Hubs, ledger: Sequence[Written] = LEDGER) -> dict[str, int]:
    return faults(judge(ledger, hubs))


def replica_places(hubs: Hubs) -> list[Place]:
    return [
        Place(region, number, index)
        for region, hub in hubs.items()
        for number, shard in enumerate(hub)
        for index, stored in enumerate(shard)
        if stored.data.startswith(b'{"_replicator"')
    ]


def test_the_judge_its_proof_and_its_reader_share_no_code_with_the_worker() -> None:
    code = """
import sys, replicator.dev.checker, replicator.dev.checker_proof, replicator.dev.checker_reading
print(*sorted(name for name in sys.modules if name.startswith("replicator")))
"""
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    parts = {
        "",
        ".dev",
        ".dev.checker",
        ".dev.checker_proof",
        ".dev.checker_reading",
        ".dev.checker_unpacking",
        ".dev.clients",
    }
    assert set(loaded) == {f"replicator{part}" for part in parts}


# --- what is clean -----------------------------------------------------------------------------------------


def test_everything_everywhere_once_and_in_order_is_clean() -> None:
    verdict = judge(LEDGER, clean_hubs())
    assert verdict.clean
    assert verdict.written == len(LEDGER)
    assert verdict.delivered == dict.fromkeys(REGIONS, 2 * PER_HOME)
    assert verdict.missing == {}
    assert verdict.examples == {}


def test_events_of_different_keys_or_homes_may_overtake_each_other() -> None:
    hubs = clean_hubs()
    hubs["eu-west-1"][0].sort(key=lambda stored: (stored.partition_key, b"-east-1-" in stored.data))
    assert verdict_of(hubs) == {}


def test_a_relayed_event_names_the_regions_on_its_way() -> None:
    ledger = [event("us-east-1", 0)]
    hubs = {
        "us-east-1": [[original(ledger[0])]],
        "eu-west-1": [[replica(ledger[0])]],
        "ap-southeast-2": [[replica(ledger[0], "eu-west-1")]],
    }
    assert verdict_of(hubs, ledger) == {}


def test_an_event_whose_reply_was_lost_counts_as_written_if_it_stands_at_home() -> None:
    unsure = [replace(written, is_acknowledged=False) for written in LEDGER]
    assert judge(unsure, clean_hubs()).clean
    without = [written for written in LEDGER if written.id != "eu-west-1-4"]
    verdict = judge(unsure, clean_hubs(without))
    assert verdict.clean
    assert verdict.written == len(LEDGER) - 1


# --- one fault each ----------------------------------------------------------------------------------------


def test_a_missing_replica_is_lost_and_named() -> None:
    hubs = clean_hubs()
    hubs["eu-west-1"][0] = [s for s in hubs["eu-west-1"][0] if b'"us-east-1-4"' not in s.data]
    verdict = judge(LEDGER, hubs)
    assert faults(verdict) == {"lost": 1}
    assert verdict.missing == {"eu-west-1": ["us-east-1-4"]}
    assert verdict.examples == {"lost": ["eu-west-1: us-east-1-4"]}
    assert verdict.delivered["eu-west-1"] == 2 * PER_HOME - 1


def test_an_acknowledged_event_that_its_home_lacks_is_lost_at_home() -> None:
    without = [written for written in LEDGER if written.id != "us-east-1-4"]
    assert verdict_of(clean_hubs(without)) == {"lost_at_home": 1}


def test_a_replica_of_an_event_that_was_never_stored_at_home_is_foreign_unless_acknowledged() -> None:
    hubs = clean_hubs()
    hubs["us-east-1"] = [[s for s in shard if b'"us-east-1-4"' not in s.data] for shard in hubs["us-east-1"]]
    assert verdict_of(hubs) == {"lost_at_home": 1}
    unsure = [replace(written, is_acknowledged=False) for written in LEDGER]
    assert verdict_of(hubs, unsure) == {"foreign": 2}


def test_two_copies_at_home_accuse_the_producer() -> None:
    hubs = clean_hubs()
    hubs["us-east-1"][0].append(original(event("us-east-1", 1)))
    assert verdict_of(hubs) == {"written_twice": 1}


def test_a_tagged_copy_in_its_home_hub_has_looped() -> None:
    hubs = clean_hubs()
    hubs["us-east-1"][0].append(replica(event("us-east-1", 1), "eu-west-1"))
    assert verdict_of(hubs) == {"looped": 1}


def test_a_copy_that_visited_a_region_twice_has_looped_and_did_not_arrive() -> None:
    hubs = clean_hubs()
    shard = hubs["eu-west-1"][0]
    place = next(i for i, stored in enumerate(shard) if b'"us-east-1-1"' in stored.data)
    shard[place] = replica(event("us-east-1", 1), "ap-southeast-2", "ap-southeast-2")
    assert verdict_of(hubs) == {"looped": 1, "lost": 1}
    shard[place] = replica(event("us-east-1", 1), "eu-west-1")
    assert verdict_of(hubs) == {"looped": 1, "lost": 1}


def test_records_nobody_wrote_are_foreign() -> None:
    stray = event("us-east-1", 1000)
    for record in (
        original(stray),
        replica(stray),
        Stored(b"no event", "key"),
        Stored(b"[1]", "key"),
        original(event("us-east-1", 1)),  # without its tag it was not written here
    ):
        hubs = clean_hubs()
        hubs["eu-west-1"][0].append(record)
        assert verdict_of(hubs) == {"foreign": 1}


def test_a_copy_that_says_it_has_not_left_is_an_original_at_home_and_foreign_elsewhere() -> None:
    hubs = clean_hubs()
    away = hubs["eu-west-1"][0]
    good = replica(event("us-east-1", 1))
    waiting = Stored(good.data.replace(b'["us-east-1"]', b"[]"), good.partition_key)
    away[away.index(good)] = waiting
    assert verdict_of(hubs) == {"foreign": 1, "lost": 1}
    away[away.index(waiting)] = good
    home = hubs["us-east-1"][0]
    original = next(stored for stored in home if good.data.endswith(stored.data[1:]))
    home[home.index(original)] = waiting
    assert verdict_of(hubs) == {}
    home.append(waiting)
    assert verdict_of(hubs) == {"written_twice": 1}


def test_a_replica_that_differs_by_more_than_its_tag_is_altered() -> None:
    good = replica(event("us-east-1", 1))
    tag_end = good.data.index(b"},") + 2
    for record in (
        Stored(good.data.replace(b'"x"', b'"y"'), good.partition_key),
        Stored(good.data, "other key"),
        Stored(good.data[:tag_end] + b'"more":1,' + good.data[tag_end:], good.partition_key),
        Stored(good.data.replace(b'"payload": ', b'"payload":'), good.partition_key),
        Stored(good.data.replace(b'["us-east-1"]', b'["ap-southeast-2"]'), good.partition_key),
    ):
        hubs = clean_hubs()
        shard = hubs["eu-west-1"][0]
        shard[shard.index(good)] = record
        assert verdict_of(hubs) == {"altered": 1}


def test_an_original_that_differs_from_what_was_written_is_altered() -> None:
    hubs = clean_hubs()
    shard = hubs["us-east-1"][0]
    place = shard.index(original(event("us-east-1", 1)))
    shard[place] = Stored(shard[place].data.replace(b'"x"', b'"y"'), shard[place].partition_key)
    assert verdict_of(hubs) == {"altered": 1}


def test_a_late_second_copy_is_a_duplicate_and_no_change_of_order() -> None:
    hubs = clean_hubs()
    hubs["eu-west-1"][1].append(replica(event("us-east-1", 0)))
    assert verdict_of(hubs) == {"duplicated": 1}


def test_order_goes_by_the_home_hub_not_by_the_ledger() -> None:
    """A producer's own disorder is not the replication's: the replicas follow what the home hub shows."""
    hubs = clean_hubs([*reversed(LEDGER)])
    assert verdict_of(hubs) == {}


def test_order_continues_from_a_parent_shard_to_its_children() -> None:
    hubs = clean_hubs()
    hot = hubs["eu-west-1"].pop()
    hubs["eu-west-1"] += [hot[:10], hot[10:]]
    assert verdict_of(hubs) == {}
    hubs["eu-west-1"][-2:] = [hot[10:], hot[:10]]
    # One seam in each of the two lanes that arrive here, and for its own lane one in each of the two peers.
    assert verdict_of(hubs) == {"reordered": 4}


# --- any number of faults ----------------------------------------------------------------------------------

seeds = st.integers(0, 2**32 - 1)
counts = st.integers(0, 12)


@given(seeds, counts)
def test_any_set_of_removed_replicas_is_counted_exactly(seed: int, count: int) -> None:
    hubs: Hubs = clean_hubs()
    places = random.Random(seed).sample(replica_places(hubs), count)
    for place in sorted(places, key=lambda place: -place.index):
        hubs = removed(hubs, place)
    assert verdict_of(hubs) == ({"lost": count} if count else {})


@given(seeds, counts)
def test_any_repetitions_are_counted_exactly(seed: int, count: int) -> None:
    hubs: Hubs = clean_hubs()
    for place in random.Random(seed).choices(replica_places(hubs), k=count):
        hubs = repeated(hubs, place)
    assert verdict_of(hubs) == ({"duplicated": count} if count else {})


@given(seeds, counts)
def test_any_swaps_of_separate_neighbours_are_counted_exactly(seed: int, count: int) -> None:
    hubs: Hubs = clean_hubs()
    pairs = separate_neighbours(hubs)
    for first, second in random.Random(seed).sample(pairs, min(count, len(pairs))):
        hubs = swapped(hubs, first, second)
    assert verdict_of(hubs) == ({"reordered": min(count, len(pairs))} if count else {})


def separate_neighbours(hubs: Hubs) -> list[tuple[Place, Place]]:
    """Pairs of neighbours in a lane so that no two pairs touch."""
    lanes: dict[tuple[str, str, str], list[Place]] = {}
    for place in replica_places(hubs):
        stored = hubs[place.region][place.shard][place.index]
        home = json.loads(stored.data)["home"]
        lanes.setdefault((place.region, home, stored.partition_key), []).append(place)
    return [pair for lane in lanes.values() for pair in list(pairwise(lane))[::3]]


# --- the proof on real data --------------------------------------------------------------------------------


@given(seeds)
def test_the_self_test_plants_one_fault_of_each_kind_and_passes(seed: int) -> None:
    trials = prove(LEDGER, clean_hubs(), random.Random(seed))
    assert [trial.name for trial in trials] == ["remove", "repeat", "swap", "send back"]
    assert all(trial.is_passed for trial in trials), trials


@given(seeds)
def test_the_self_test_also_holds_on_data_that_is_not_clean(seed: int) -> None:
    rng = random.Random(seed)
    hubs: Hubs = clean_hubs()
    for fault in (removed, repeated):
        hubs = fault(hubs, rng.choice(replica_places(hubs)))
    hubs = swapped(hubs, *rng.choice(separate_neighbours(hubs)))
    assert all(trial.is_passed for trial in prove(LEDGER, hubs, rng))


# --- reading -----------------------------------------------------------------------------------------------


def test_parents_are_read_before_their_children() -> None:
    shards = parents_first(
        [
            {"ShardId": "merged", "ParentShardId": "left", "AdjacentParentShardId": "right"},
            {"ShardId": "left", "ParentShardId": "root"},
            {"ShardId": "right", "ParentShardId": "root"},
            {"ShardId": "root", "ParentShardId": "trimmed away"},
        ]
    )
    assert shards == ["root", "left", "right", "merged"]
