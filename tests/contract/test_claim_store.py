"""What every claim store promises: fenced, repeatable, never absent by mistake. Memory, Valkey, and cluster mode."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quiet_wire import quiet_wire
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.crc import key_slot

from replicator.adapters.memory_claims import MemoryClaims
from replicator.adapters.redis_claims import OPERATIONS_MAX, RedisClaims, connect
from replicator.core.kpl import USER_RECORDS_MAX
from replicator.core.model import LinkName, SequenceNumber, ShardId
from replicator.dev.valkey import Valkey, ValkeyCluster, told, valkey
from replicator.errors import ClaimsLost, Fenced, StoreUnavailable
from replicator.ports import ClaimScope, ClaimSession, ClaimStore
from tests.simulation.ports import WireClaims

NONE = SequenceNumber(0)


def claim_of(event: str, version: int = 0) -> bytes:
    return event.encode().ljust(16, b".")[:16] + version.to_bytes(4, "big")


def scope_of(name: str) -> ClaimScope:
    return ClaimScope(LinkName(f"orders:{name}"), ShardId("shardId-000000000000"), "1")


class Clock:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def now_ms(self) -> int:
        return self.ms


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    nodes = ValkeyCluster()
    try:
        nodes.start_blocking()
        yield nodes
    finally:
        nodes.stop()


@pytest.fixture(params=["memory", "simulated", "valkey", "cluster"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ClaimStore]:
    if request.param == "memory":
        yield MemoryClaims(Clock().now_ms)
        return
    if request.param == "simulated":
        yield WireClaims(MemoryClaims(Clock().now_ms), quiet_wire("claims"))
        return
    if request.param == "cluster":
        claims = connect(request.getfixturevalue("cluster").url, is_cluster=True, timeout_s=5.0)
        yield claims
        await claims.close()
        return
    claims = connect(request.getfixturevalue("valkey_url"), timeout_s=5.0)
    yield claims
    await claims.close()


@pytest.fixture
def scope(new_name: Callable[[str], str]) -> ClaimScope:
    return scope_of(new_name(f"peer-{os.getpid()}"))


async def test_an_event_is_new_until_it_is_settled_and_done_from_then_on(store: ClaimStore, scope: ClaimScope) -> None:
    session = await store.attach(scope, 1)
    assert session.is_new
    both = claim_of("a") + claim_of("b")
    assert await store.claim(session, 1, both) == b"nn"
    assert await store.claim(session, 2, claim_of("a")) == b"n"
    await store.settle(session, 1, (), SequenceNumber(7))
    assert await store.claim(session, 3, both + claim_of("c")) == b"ddn"


async def test_the_same_id_with_other_bytes_is_another_event(store: ClaimStore, scope: ClaimScope) -> None:
    session = await store.attach(scope, 1)
    for batch, (version, verdict) in enumerate([(0, b"n"), (1, b"c"), (0, b"d"), (1, b"d"), (2, b"c")], start=1):
        assert await store.claim(session, batch, claim_of("a", version)) == verdict
        await store.settle(session, batch, (), NONE)


async def test_two_versions_under_way_together_are_both_remembered(store: ClaimStore, scope: ClaimScope) -> None:
    session = await store.attach(scope, 1)
    assert await store.claim(session, 1, claim_of("a", 0) + claim_of("a", 1)) == b"nn"
    await store.settle(session, 1, (), NONE)
    assert await store.claim(session, 2, claim_of("a", 0) + claim_of("a", 1)) == b"dd"


async def test_what_was_left_undone_is_absent_again(store: ClaimStore, scope: ClaimScope) -> None:
    session = await store.attach(scope, 1)
    batch = b"".join(claim_of(name) for name in "abcd")
    await store.claim(session, 1, batch)
    await store.settle(session, 1, [1, 3], NONE)
    assert await store.claim(session, 2, batch) == b"dndn"


async def test_claim_and_settle_may_be_repeated(store: ClaimStore, scope: ClaimScope) -> None:
    session = await store.attach(scope, 1)
    first = await store.claim(session, 1, claim_of("a"))
    assert await store.claim(session, 1, claim_of("a")) == first
    await store.settle(session, 1, (), SequenceNumber(3))
    await store.settle(session, 1, (), SequenceNumber(3))
    assert await store.claim(session, 2, claim_of("a")) == b"d"


async def test_a_batch_dropped_by_an_attaching_that_came_again_is_not_settled(
    store: ClaimStore, scope: ClaimScope
) -> None:
    # Answered as settled, it was taken for marked: a release relied on it, and its events were sent twice.
    session = await store.attach(scope, 1)
    await store.claim(session, 1, claim_of("a"))
    await store.attach(scope, 1)
    with pytest.raises(ClaimsLost):
        await store.settle(session, 1, (), NONE)
    again = await store.attach(scope, 1)
    assert await store.claim(again, 2, claim_of("a")) == b"n"
    await store.settle(again, 2, (), NONE)
    await store.settle(again, 2, (), NONE)
    assert await store.claim(again, 3, claim_of("a")) == b"d"


async def test_a_settlement_after_one_that_the_store_no_longer_knows_is_lost(
    store: ClaimStore, scope: ClaimScope
) -> None:
    # A store that fell back to between a claim and its settlement stands at the batch of the claim all the same.
    session = await store.attach(scope, 1)
    assert session.settled == 0
    for batch in (1, 2, 3):
        await store.claim(session, batch, claim_of(str(batch)))
    await store.settle(session, 1, (), NONE, number=4)
    with pytest.raises(ClaimsLost, match="settlements stand at 4"):
        await store.settle(session, 2, (), NONE, number=6, after=5)
    await store.settle(session, 2, (), NONE, number=6, after=4)
    await store.settle(session, 1, (), NONE, number=7, after=6)
    assert (await store.attach(scope, 2)).settled == 7


async def test_what_an_earlier_session_of_the_same_owner_sent_has_no_effect_on_the_next(
    store: ClaimStore, scope: ClaimScope
) -> None:
    # After a store fell back, batches have numbers again that earlier ones had, and what settles those may come late.
    first = await store.attach(scope, 1, 7)
    await store.claim(first, 1, claim_of("a"))
    second = await store.attach(scope, 1, 8)
    await store.claim(second, 2, claim_of("b"))
    for late in (store.settle(first, 2, (), NONE), store.claim(first, 3, claim_of("c"))):
        with pytest.raises(ClaimsLost, match="another session"):
            await late
    with pytest.raises(StoreUnavailable, match="a later session has begun"):
        await store.attach(scope, 1, 7)
    assert await store.claim(second, 3, claim_of("b")) == b"n"
    await store.settle(second, 2, (), NONE)
    assert await store.claim(second, 4, claim_of("b")) == b"d"
    assert (await store.attach(scope, 2, 1)).attempt == 1


async def test_a_batch_may_be_as_large_as_the_largest_aggregate(store: ClaimStore, scope: ClaimScope) -> None:
    session = await store.attach(scope, 1)
    claims = b"".join(number.to_bytes(16, "big") + b"same" for number in range(USER_RECORDS_MAX))
    assert await store.claim(session, 1, claims) == b"n" * USER_RECORDS_MAX
    await store.settle(session, 1, range(1, USER_RECORDS_MAX, 2), NONE)
    assert await store.claim(session, 2, claims) == b"dn" * (USER_RECORDS_MAX // 2)


async def test_a_lower_epoch_can_do_nothing_any_more(store: ClaimStore, scope: ClaimScope) -> None:
    old = await store.attach(scope, 1)
    await store.claim(old, 1, claim_of("a"))
    new = await store.attach(scope, 2)
    assert (new.open_batches, new.batch, new.store) == (1, 1, old.store)
    with pytest.raises(Fenced):
        await store.claim(old, 2, claim_of("b"))
    with pytest.raises(Fenced):
        await store.settle(old, 1, (), NONE)
    with pytest.raises(Fenced):
        await store.attach(scope, 1)
    assert await store.claim(new, 2, claim_of("a")) == b"n"


async def test_a_batch_out_of_turn_means_the_store_went_back(store: ClaimStore, scope: ClaimScope) -> None:
    session = await store.attach(scope, 1)
    await store.claim(session, 1, claim_of("a"))
    with pytest.raises(ClaimsLost):
        await store.claim(session, 3, claim_of("b"))
    with pytest.raises(ClaimsLost):
        await store.claim(session, 1, claim_of("b"))
    with pytest.raises(ClaimsLost):
        await store.settle(session, 2, (), NONE)


async def test_a_forgotten_scope_answers_lost_and_never_starts_anew(store: ClaimStore, scope: ClaimScope) -> None:
    session = await store.attach(scope, 1)
    await store.claim(session, 1, claim_of("a"))
    await store.forget(session)
    with pytest.raises(ClaimsLost):
        await store.claim(session, 2, claim_of("b"))
    with pytest.raises(ClaimsLost):
        await store.settle(session, 1, (), NONE)
    again = await store.attach(scope, 1)
    assert again.is_new
    assert again.store != session.store


async def test_the_watermark_only_grows_also_beyond_any_float(store: ClaimStore, scope: ClaimScope) -> None:
    session = await store.attach(scope, 1)
    for batch, mark in enumerate([9, 10**128 + 1, 10**128, 5], start=1):
        await store.claim(session, batch, claim_of(str(batch)))
        await store.settle(session, batch, (), SequenceNumber(mark))
    assert (await store.attach(scope, 1)).watermark == 10**128 + 1


async def test_a_session_knows_for_how_long_the_store_remembers(store: ClaimStore, scope: ClaimScope) -> None:
    session = await store.attach(scope, 1)
    assert session.remembers_ms == 0
    await store.claim(session, 1, claim_of("a"))
    assert (await store.attach(scope, 1)).remembers_ms == 0
    await store.claim(session, 2, claim_of("a"))
    await store.settle(session, 2, (), NONE)
    assert 3_500_000 < (await store.attach(scope, 2)).remembers_ms <= 3_600_000


async def test_the_window_passes_in_memory() -> None:
    clock = Clock()
    memory = MemoryClaims(clock.now_ms, window_s=10.0)
    session = await memory.attach(scope_of("w"), 1)
    await memory.claim(session, 1, claim_of("a"))
    await memory.settle(session, 1, (), NONE)
    clock.ms += 10_000
    assert await memory.claim(session, 2, claim_of("a")) == b"d"
    clock.ms += 1
    assert await memory.claim(session, 3, claim_of("a")) == b"n"


async def test_the_window_passes_in_redis_and_nothing_stays_behind(valkey_url: str, scope: ClaimScope) -> None:
    claims = connect(valkey_url, window_s=0.2, timeout_s=5.0)
    client = Redis.from_url(valkey_url)
    try:
        session = await claims.attach(scope, 1)
        await claims.claim(session, 1, claim_of("a"))
        await claims.settle(session, 1, (), NONE)
        batch = 2
        while await claims.claim(session, batch, claim_of("a")) == b"d":
            batch += 1
        pattern = f"rr2:{{*}}:{scope.link}:w:*"
        while await client.keys(pattern):
            await client.ping()
    finally:
        await client.aclose()
        await claims.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True), st.sets(st.integers(0, 11))),
        max_size=12,
    ),
    number=st.integers(0, 5),
)
async def test_redis_and_memory_agree_on_any_history(
    steps: list[tuple[list[int], set[int]]], number: int, valkey_url: str, new_name: Callable[[str], str]
) -> None:
    redis = connect(valkey_url, timeout_s=5.0)
    memory = MemoryClaims(Clock().now_ms)
    scope = scope_of(new_name(f"agree-{os.getpid()}"))
    try:
        sessions = [(store, await store.attach(scope, 1)) for store in (redis, memory)]
        for batch, (numbers, undone) in enumerate(steps, start=1):
            claims = b"".join(claim_of(str(number // 3), number % 3) for number in numbers)
            verdicts = [await store.claim(session, batch, claims) for store, session in sessions]
            assert verdicts[0] == verdicts[1]
            for store, session in sessions:
                places = {index for index in undone if index < len(numbers)}
                await store.settle(session, batch, places, NONE, number=number * batch)
        again = [await store.attach(scope, 2) for store, _ in sessions]
        assert again[0].settled == again[1].settled == number * len(steps)
    finally:
        await redis.close()


# --- Redis only ----------------------------------------------------------------------------------------------------


async def script_calls(client: Redis) -> int:
    stats = await client.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("eval", "evalsha"))


async def test_what_comes_together_goes_in_one_call_and_each_has_its_own_answer(
    valkey_url: str, new_name: Callable[[str], str]
) -> None:
    claims = connect(valkey_url, timeout_s=5.0)
    client = Redis.from_url(valkey_url)
    try:
        sessions = [await claims.attach(scope_of(new_name(f"together-{os.getpid()}")), 2) for _ in range(3)]
        await claims.attach(sessions[1].scope, 3)
        before = await script_calls(client)
        answers = await asyncio.gather(
            claims.claim(sessions[0], 1, claim_of("a")),
            claims.claim(sessions[1], 1, claim_of("a")),
            claims.claim(sessions[2], 2, claim_of("a")),
            claims.settle(sessions[0], 1, (), NONE),
            claims.claim(sessions[0], 2, claim_of("a") + claim_of("b")),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [bytes, Fenced, ClaimsLost, type(None), bytes]
        assert answers[4] == b"dn"
        assert await script_calls(client) == before + 1
    finally:
        await client.aclose()
        await claims.close()


NEVER_S = 600.0
"""Company is waited for until it comes."""
SOON_S = 10.0


@asynccontextmanager
async def three_links(
    url: str, new_name: Callable[[str], str], company_s: float
) -> AsyncIterator[tuple[RedisClaims, list[ClaimSession], Redis]]:
    claims = connect(url, timeout_s=5.0, company_s=company_s)
    client = Redis.from_url(url)
    try:
        yield claims, [await claims.attach(scope_of(new_name(f"rides-{os.getpid()}")), 1) for _ in range(3)], client
    finally:
        await client.aclose()
        await claims.close()


async def at_different_times(
    claims: RedisClaims, sessions: list[ClaimSession], batch: int, client: Redis
) -> list[asyncio.Task[None]]:
    """The links are done with the batch one after the other, a call of the server's between them."""
    settling = []
    for session in sessions:
        settling.append(asyncio.create_task(claims.settle(session, batch, (), NONE, may_wait=True)))
        await client.ping()
    return settling


async def test_a_batch_of_all_links_costs_two_calls_when_little_comes(
    valkey_url: str, new_name: Callable[[str], str]
) -> None:
    async with three_links(valkey_url, new_name, 0.5) as (claims, sessions, client):
        before, batches = await script_calls(client), 3
        for batch in range(1, batches + 1):
            await asyncio.gather(*[claims.claim(session, batch, claim_of(str(batch))) for session in sessions])
            await asyncio.gather(*await at_different_times(claims, sessions, batch, client))
        assert await script_calls(client) == before + 2 * batches


async def test_settlements_go_with_the_claims_of_the_next_batch(
    valkey_url: str, new_name: Callable[[str], str]
) -> None:
    async with three_links(valkey_url, new_name, NEVER_S) as (claims, sessions, client):
        before, batches, settling = await script_calls(client), 5, list[asyncio.Task[None]]()
        for batch in range(1, batches + 1):
            await asyncio.gather(*[claims.claim(session, batch, claim_of(str(batch))) for session in sessions])
            async with asyncio.timeout(SOON_S):
                await asyncio.gather(*settling)
            settling = await at_different_times(claims, sessions, batch, client)
        assert not any(task.done() for task in settling)
        assert await script_calls(client) == before + batches
        done = await claims.claim(sessions[0], batches + 1, b"".join(claim_of(str(number)) for number in range(1, 6)))
        assert done == b"ddddd"


async def test_a_settlement_without_company_goes_alone_after_a_moment(
    valkey_url: str, new_name: Callable[[str], str]
) -> None:
    async with three_links(valkey_url, new_name, 0.05) as (claims, [session, *_], client):
        await claims.claim(session, 1, claim_of("a"))
        before = await script_calls(client)
        async with asyncio.timeout(SOON_S):
            await claims.settle(session, 1, (), NONE, may_wait=True)
        assert await script_calls(client) == before + 1


async def test_what_somebody_waits_for_goes_at_once_and_takes_the_others_along(
    valkey_url: str, new_name: Callable[[str], str]
) -> None:
    async with three_links(valkey_url, new_name, NEVER_S) as (claims, sessions, client):
        await asyncio.gather(*[claims.claim(session, 1, claim_of("a")) for session in sessions])
        waiting = await at_different_times(claims, sessions[:2], 1, client)
        before = await script_calls(client)
        async with asyncio.timeout(SOON_S):
            await claims.settle(sessions[2], 1, (), NONE)
            await asyncio.gather(*waiting)
        assert await script_calls(client) == before + 1


async def test_a_full_call_waits_for_nothing(valkey_url: str, new_name: Callable[[str], str]) -> None:
    async with three_links(valkey_url, new_name, NEVER_S) as (claims, [session, *_], client):
        for batch in range(1, OPERATIONS_MAX + 1):
            await claims.claim(session, batch, claim_of(str(batch)))
        before = await script_calls(client)
        async with asyncio.timeout(SOON_S):
            await asyncio.gather(
                *[claims.settle(session, batch, (), NONE, may_wait=True) for batch in range(1, OPERATIONS_MAX + 1)]
            )
        assert await script_calls(client) == before + 1


async def test_who_waits_for_company_is_told_when_the_store_is_closed(
    valkey_url: str, new_name: Callable[[str], str]
) -> None:
    async with three_links(valkey_url, new_name, NEVER_S) as (claims, sessions, client):
        await asyncio.gather(*[claims.claim(session, 1, claim_of("a")) for session in sessions])
        waiting = await at_different_times(claims, sessions, 1, client)
        await claims.close()
        await asyncio.wait(waiting, timeout=SOON_S)
        assert all(task.cancelled() for task in waiting)


async def test_a_call_that_fails_fails_for_all_who_wait_and_the_next_one_is_made(valkey_url: str) -> None:
    async with valkey() as server:
        claims = connect(server.url, timeout_s=0.5)
        session = await claims.attach(scope_of("fails"), 1)
        await claims.claim(session, 1, claim_of("a"))
    try:
        calls = [claims.claim(session, batch, claim_of("a")) for batch in (2, 3)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(answer) for answer in answers] == [StoreUnavailable] * 2
        with pytest.raises(StoreUnavailable):
            await claims.claim(session, 2, claim_of("a"))
    finally:
        await claims.close()


async def settle_events(claims: RedisClaims, scope: ClaimScope, total: int) -> None:
    session = await claims.attach(scope, 1)
    for batch, start in enumerate(range(0, total, 500), start=1):
        blob = b"".join(os.urandom(20) for _ in range(min(500, total - start)))
        await claims.claim(session, batch, blob)
        await claims.settle(session, batch, (), SequenceNumber(start + 500))


@pytest.mark.parametrize("total", [100_000, 200_000])
async def test_an_event_in_the_window_takes_less_than_40_bytes(total: int) -> None:
    async with valkey() as server:
        claims = connect(server.url, timeout_s=5.0)
        client = Redis.from_url(server.url)
        try:
            await settle_events(claims, scope_of("warm"), 500)
            before = (await client.info("memory"))["used_memory"]
            await settle_events(claims, scope_of("many"), total)
            after = (await client.info("memory"))["used_memory"]
            assert (after - before) / total < 40
        finally:
            await client.aclose()
            await claims.close()


async def test_a_flushed_server_answers_lost_and_gets_no_new_keys() -> None:
    async with valkey() as server:
        claims = connect(server.url, timeout_s=5.0)
        client = Redis.from_url(server.url)
        try:
            session = await claims.attach(scope_of("f"), 1)
            await claims.claim(session, 1, claim_of("a"))
            await client.flushall()
            with pytest.raises(ClaimsLost):
                await claims.settle(session, 1, (), NONE)
            with pytest.raises(ClaimsLost):
                await claims.claim(session, 2, claim_of("b"))
            assert await client.dbsize() == 0
        finally:
            await client.aclose()
            await claims.close()


async def test_a_server_rolled_back_to_an_older_state_answers_lost() -> None:
    async with valkey() as server:
        claims = connect(server.url, timeout_s=5.0)
        client = Redis.from_url(server.url)
        try:
            session = await claims.attach(scope_of("r"), 1)
            await claims.claim(session, 1, claim_of("a"))
            [meta] = [key for key in await client.keys("*") if key.endswith(b":m")]
            older = await client.dump(meta)
            await claims.claim(session, 2, claim_of("b"))
            await client.restore(meta, 0, older, replace=True)
            with pytest.raises(ClaimsLost):
                await claims.claim(session, 3, claim_of("c"))
            # The state of an earlier owner fences nobody: its epoch is lower, not higher.
            session = await claims.attach(scope_of("r"), 2)
            await client.restore(meta, 0, older, replace=True)
            with pytest.raises(ClaimsLost):
                await claims.claim(session, 2, claim_of("b"))
            with pytest.raises(ClaimsLost):
                await claims.settle(session, 1, (), NONE)
            assert (await claims.attach(scope_of("r"), 2)).epoch == 2
        finally:
            await client.aclose()
            await claims.close()


async def test_scripts_that_the_server_forgot_are_loaded_again(valkey_url: str, scope: ClaimScope) -> None:
    claims = connect(valkey_url, timeout_s=5.0)
    client = Redis.from_url(valkey_url)
    try:
        session = await claims.attach(scope, 1)
        await claims.claim(session, 1, claim_of("a"))
        await client.script_flush()
        assert await claims.claim(session, 2, claim_of("b")) == b"n"
    finally:
        await client.aclose()
        await claims.close()


async def test_a_server_that_is_away_is_unavailable_and_so_is_a_wrong_password() -> None:
    server = Valkey(password="right")
    await server.start()
    wrong = connect(server.url.replace("right", "wrong"), timeout_s=0.5)
    right = connect(server.url, timeout_s=0.5)
    try:
        await right.attach(scope_of("x"), 1)
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1"):
            await wrong.attach(scope_of("x"), 1)
        server.kill()
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1"):
            await right.attach(scope_of("x"), 1)
    finally:
        server.stop()
        await wrong.close()
        await right.close()


# --- a cluster of several nodes ------------------------------------------------------------------------------------


@asynccontextmanager
async def a_shard_on_every_node(
    cluster: ValkeyCluster, name: str, *, timeout_s: float = 5.0
) -> AsyncIterator[tuple[RedisClaims, dict[Valkey, ClaimSession]]]:
    """An attached session for each node, of shards of one link; the server knows no script from earlier tests."""
    for node in cluster.nodes:
        told(node, "SCRIPT", "FLUSH")
    claims = connect(cluster.url, is_cluster=True, timeout_s=timeout_s)
    try:
        scopes: dict[Valkey, ClaimScope] = {}
        for number in range(1000):
            scope = ClaimScope(LinkName(f"orders:{name}"), ShardId(f"shardId-{number:012}"), "1")
            scopes.setdefault(cluster.holder(slot_of(scope)), scope)
        assert len(scopes) == len(cluster.nodes)
        yield claims, {node: await claims.attach(scope, 1) for node, scope in scopes.items()}
    finally:
        await claims.close()


def slot_of(scope: ClaimScope) -> int:
    """Of all keys of the scope: of the part in braces (the cluster specification's hash tag)."""
    return key_slot(f"{scope.link.partition(':')[0]}|{scope.shard}|{scope.incarnation}".encode())


async def test_shards_on_several_nodes_are_claimed_together_and_each_node_learns_the_scripts(
    cluster: ValkeyCluster, new_name: Callable[[str], str]
) -> None:
    async with a_shard_on_every_node(cluster, new_name(f"nodes-{os.getpid()}")) as (claims, sessions):
        for node in cluster.nodes:
            assert int(told(node, "DBSIZE")) > 0
        for batch in (1, 2):
            both = claim_of("a") + claim_of(str(batch))
            verdicts = await asyncio.gather(*[claims.claim(session, batch, both) for session in sessions.values()])
            assert verdicts == [b"nn" if batch == 1 else b"dn"] * len(sessions)
            await asyncio.gather(*[claims.settle(session, batch, (), NONE) for session in sessions.values()])
        told(cluster.nodes[1], "SCRIPT", "FLUSH")
        verdicts = await asyncio.gather(*[claims.claim(session, 3, claim_of("a")) for session in sessions.values()])
        assert verdicts == [b"d"] * len(sessions)


async def test_a_slot_that_moves_to_another_node_takes_its_claims_along(
    cluster: ValkeyCluster, new_name: Callable[[str], str]
) -> None:
    """As when a node is added. While keys of the slot are on both nodes the store is away, and nothing starts anew."""
    async with a_shard_on_every_node(cluster, new_name(f"moves-{os.getpid()}")) as (claims, sessions):
        old, new = cluster.nodes[1:]
        session = sessions[old]
        await claims.claim(session, 1, claim_of("a"))
        await claims.settle(session, 1, (), NONE)
        slot, [old_id, new_id] = slot_of(session.scope), [told(node, "CLUSTER", "MYID") for node in (old, new)]
        told(new, "CLUSTER", "SETSLOT", slot, "IMPORTING", old_id)
        told(old, "CLUSTER", "SETSLOT", slot, "MIGRATING", new_id)
        with SyncRedis.from_url(old.url) as client:
            for key in client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000):
                client.execute_command("MIGRATE", "127.0.0.1", new.port, key, 0, 5000)
        with pytest.raises(StoreUnavailable):
            await claims.claim(session, 2, claim_of("a") + claim_of("b"))
        for node in (new, old):
            told(node, "CLUSTER", "SETSLOT", slot, "NODE", new_id)
        assert await claims.claim(session, 2, claim_of("a") + claim_of("b")) == b"dn"
        await claims.settle(session, 2, (), NONE)
        assert await claims.claim(session, 3, claim_of("a") + claim_of("b")) == b"dd"


async def test_a_lost_node_takes_only_its_own_shards_along_and_never_starts_them_anew() -> None:
    cluster = ValkeyCluster()
    try:
        cluster.start_blocking()
        async with a_shard_on_every_node(cluster, "lost", timeout_s=0.5) as (claims, sessions):
            lost = cluster.nodes[0]
            lost.kill()
            with pytest.raises(StoreUnavailable):
                await claims.claim(sessions.pop(lost), 1, claim_of("a"))
            for session in sessions.values():
                assert await claims.claim(session, 1, claim_of("a")) == b"n"
    finally:
        cluster.stop()
