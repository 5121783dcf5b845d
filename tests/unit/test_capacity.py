"""What a load needs: the sums are right, the figures are those of the code, and the worked example stays as told."""

import json
import re
from base64 import b64encode
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from replicator.core import capacity
from replicator.core.capacity import Figures, Load, Need, Prices, link_rates, need
from replicator.core.leasing import LeaseSettings
from replicator.core.model import EventId, Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.core.tag import Tag, TagKeys, encode_tag
from replicator.core.topology import chain, compile_generation, hub, mesh

FIGURES, PRICES = Figures(), Prices()
A, B, C = map(Region, ("ap-southeast-2", "eu-west-1", "us-east-1"))
TEN = [Region(f"eu-west-{number}") for number in range(10)]
README = Path(__file__).resolve().parents[2] / "README.md"
UUID = "018f2b1c-7a1e-7c3f-9b1a-2f4f5a6b7c8d"


def mesh_need(regions: list[Region], load: Load) -> Need:
    return need(regions[0], compile_generation(1, regions, mesh(regions)).paths, load, FIGURES, PRICES)


def test_in_a_mesh_every_link_carries_its_own_regions_events() -> None:
    rates = link_rates(compile_generation(1, [A, B, C], mesh([A, B, C])).paths, 100)
    assert len(rates) == 6
    assert set(rates.values()) == {100}


def test_a_hub_sends_each_leaf_what_all_others_write_and_each_event_over_a_link_once() -> None:
    rates = link_rates(compile_generation(1, [A, B, C], hub([A, B, C], B)).paths, 100)
    assert rates == {(A, B): 100, (C, B): 100, (B, A): 200, (B, C): 200}


def test_a_chain_carries_more_towards_its_ends() -> None:
    rates = link_rates(compile_generation(1, [A, B, C], chain([A, B, C])).paths, 100)
    assert rates == {(A, B): 100, (B, C): 200, (C, B): 100, (B, A): 200}


def test_a_hub_stream_holds_what_is_written_and_what_arrives_and_tasks_follow_shards_or_cores() -> None:
    found = mesh_need([A, B, C], Load(rate=5000, size=1024))
    assert (found.written, found.arriving, found.forwarded) == (5000, 10_000, 10_000)
    assert found.hub_bytes == 5000 * 1024 + 10_000 * (1024 + FIGURES.tag_bytes)
    assert found.shards == 23
    assert found.tasks == 2
    assert mesh_need([A, B, C], Load(rate=5000, size=1024, shards=500)).tasks == 5
    assert mesh_need([A, B, C], Load(rate=500_000, size=100)).cores > 5
    assert all(limit.share < 1 for limit in found.limits)


def test_what_is_given_for_one_source_counts_for_each_and_lease_units_are_those_of_one() -> None:
    one, two = (mesh_need([A, B], Load(rate=5000, size=1024, sources=sources)) for sources in (1, 2))
    assert two.written == 2 * one.written
    assert two.shards == one.shards
    assert two.lease_write_units == one.lease_write_units
    assert two.redis_bytes == 2 * one.redis_bytes


loads = st.builds(
    Load,
    rate=st.floats(1, 1e6),
    size=st.integers(50, 100_000),
    sources=st.integers(1, 4),
    window_s=st.floats(1, 86_400),
    leases=st.just(LeaseSettings()),
)


@given(loads, st.integers(2, 10))
def test_twice_the_events_never_need_less_of_anything(load: Load, regions: int) -> None:
    once, twice = (mesh_need(TEN[:regions], replace(load, rate=rate)) for rate in (load.rate, 2 * load.rate))
    for name in ("shards", "cores", "tasks", "redis_bytes", "redis_nodes", "redis_calls", "sent_bytes"):
        assert getattr(once, name) <= getattr(twice, name), name
    assert sum(once.dollars.values()) <= sum(twice.dollars.values()) * 1.001
    assert [limit.share for limit in once.limits] == sorted((limit.share for limit in once.limits), reverse=True)


def test_ten_regions_and_five_million_events_bend_first_where_the_architecture_says() -> None:
    found = mesh_need(TEN, Load(rate=500_000, size=1024))
    over = {limit.name: limit.share for limit in found.limits if limit.share > 1}
    assert list(over) == ["lease table, writes to one partition", "Redis, nodes of a cluster"]
    assert found.is_listing_shared
    assert found.lease_read_units <= LeaseSettings().read_units_per_s
    slower = Load(rate=500_000, size=1024, window_s=600, leases=LeaseSettings(60.0, 20.0))
    assert [limit.name for limit in mesh_need(TEN, slower).limits if limit.share > 1] == ["Redis, nodes of a cluster"]


def test_the_figures_of_the_bench_are_those_that_the_readme_publishes() -> None:
    text = README.read_text()

    def worker_us(case: str) -> float:
        [row] = re.findall(rf"^\| {re.escape(case)} \|(.*)\|$", text, re.MULTILINE)
        return float(row.split("|")[3])

    assert worker_us("1 KB") == capacity.BENCH_ONE_PEER_US
    assert worker_us("1 KB to 3 peers") == capacity.BENCH_THREE_PEERS_US
    assert worker_us("1 KB over TLS") == capacity.BENCH_TLS_US
    [redis_us] = re.findall(r"^\| Redis, 1 peer: .*, ([\d.]+) us an event \|$", text, re.MULTILINE)
    assert float(redis_us) == capacity.BENCH_REDIS_US


def test_the_tag_is_as_long_as_reckoned() -> None:
    origin = Origin(A, SourceName("orders"), "1763899200000", ShardId("shardId-000000000123"), SEQUENCE, 0)
    keys = TagKeys("2026a", {"2026a": b"a secret of the tests"})
    signed = keys.sign(Tag(1, origin, EventId(UUID), (A,), 1763899200000))
    spliced = len(encode_tag(signed)) + len(b'"_replicator":,')
    assert FIGURES.tag_bytes - 2 <= spliced <= FIGURES.tag_bytes


SEQUENCE = SequenceNumber(49650000000000000000000000000000000000000000000000004711)


def test_requests_and_replies_are_as_long_as_reckoned() -> None:
    """Compact JSON, as `adapters.kinesis_sink` writes it and Kinesis answers it."""
    data = b64encode(bytes(999)).decode()
    entry = json.dumps({"Data": data, "PartitionKey": UUID}, separators=(",", ":")) + ","
    assert len(entry) == 999 * 4 / 3 + FIGURES.request_entry_bytes
    reply = f'{{"SequenceNumber":"{SEQUENCE}","ShardId":"shardId-000000000123"}},'
    assert len(reply) == FIGURES.reply_entry_bytes
