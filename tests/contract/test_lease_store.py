"""What every lease store promises: one owner an epoch, nothing written by a former one. Memory and DynamoDB."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import aioboto3
import pytest
from aiobotocore.config import AioConfig
from msgspec.structs import replace
from quiet_wire import quiet_wire

from replicator.adapters.dynamodb_leases import DynamoDbLeases, ensure_table
from replicator.adapters.memory_leases import MemoryLeases
from replicator.aws.session import AwsSession
from replicator.core.bulletin import Bulletin
from replicator.core.model import (
    After,
    AtTimestamp,
    Checkpoint,
    ClaimMark,
    Lease,
    Lifetime,
    LinkName,
    SequenceNumber,
    Shard,
    ShardEnd,
    ShardId,
    SourceName,
    TrimHorizon,
)
from replicator.core.retention import Kept
from replicator.dev.proxy import Proxy
from replicator.errors import ConfigError, Fenced, Misconfigured, StoreUnavailable
from replicator.ports import LeaseStore
from tests.simulation.ports import WireLeases

T = TypeVar("T")
ORDERS = SourceName("orders")
SHARD = Shard(ShardId("shardId-000000000002"), (ShardId("shardId-000000000000"), ShardId("shardId-000000000001")))
WEST, SOUTH = LinkName("orders:eu-west-1"), LinkName("orders:ap-southeast-2")
BIG = Checkpoint(After(SequenceNumber(10**128 + 7)), 1_700_000_000_123, ClaimMark("ab:cd", 12, 9, 17))


@pytest.fixture(params=["memory", "simulated", "dynamodb"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[LeaseStore]:
    if request.param == "memory":
        yield MemoryLeases()
        return
    if request.param == "simulated":
        yield WireLeases(MemoryLeases(), quiet_wire("leases"), lambda _: None, "this", {})
        return
    url = request.getfixturevalue("aws_url")
    table = request.getfixturevalue("new_name")("leases")
    async with AwsSession().client("dynamodb", "us-east-1", url) as client:
        await ensure_table(client, table)
        await ensure_table(client, table)
        yield DynamoDbLeases(client, table)


async def the_row(store: LeaseStore) -> Lease:
    [row] = await store.rows(ORDERS)
    return row


async def taken(store: LeaseStore, owner: str = "w1") -> Lease:
    await store.create(ORDERS, SHARD, "17")
    lease = await store.acquire(await the_row(store), owner)
    assert lease is not None
    return lease


async def test_a_fresh_row_is_unowned_and_making_it_again_changes_nothing(store: LeaseStore) -> None:
    await store.create(ORDERS, SHARD, "17")
    row = await the_row(store)
    assert row == Lease(ORDERS, SHARD.id, SHARD.parents, "17", None, 0, 0, None, {})
    await store.acquire(row, "w1")
    await store.create(ORDERS, SHARD, "18")
    assert (await the_row(store)).owner == "w1"
    assert await store.rows(SourceName("others")) == []


async def test_of_two_takers_one_wins_and_the_epoch_grows(store: LeaseStore) -> None:
    await store.create(ORDERS, SHARD, "17")
    seen = await the_row(store)
    first = await store.acquire(seen, "w1")
    assert first is not None
    assert (first.owner, first.epoch) == ("w1", 1)
    assert await store.acquire(seen, "w2") is None
    second = await store.acquire(first, "w2")
    assert second is not None
    assert second.epoch == 2


async def test_a_renewal_beats_and_stores_the_given_checkpoints_only(store: LeaseStore) -> None:
    lease = await taken(store)
    renewed = await store.renew(lease, {WEST: BIG})
    again = await store.renew(renewed, {SOUTH: Checkpoint(ShardEnd())})
    assert again.beat == lease.beat + 2
    assert again.checkpoints == {WEST: BIG, SOUTH: Checkpoint(ShardEnd())}
    assert await the_row(store) == again


@pytest.mark.parametrize(
    "checkpoint",
    [
        Checkpoint(TrimHorizon()),
        Checkpoint(AtTimestamp(5), 0),
        Checkpoint(ShardEnd(), 9, ClaimMark("", 0)),
        Checkpoint(AtTimestamp(5), 7, None, Lifetime(30_000, 12)),
        BIG,
    ],
)
async def test_every_checkpoint_is_read_back_as_it_was_stored(store: LeaseStore, checkpoint: Checkpoint) -> None:
    lease = await taken(store)
    await store.renew(lease, {WEST: checkpoint})
    assert (await the_row(store)).checkpoints == {WEST: checkpoint}


async def test_a_former_owner_can_write_nothing_any_more(store: LeaseStore) -> None:
    old = await taken(store)
    new = await store.acquire(old, "w2")
    assert new is not None
    with pytest.raises(Fenced):
        await store.renew(old, {WEST: BIG})
    with pytest.raises(Fenced):
        await store.release(old, {WEST: BIG})
    same_owner_later = await store.acquire(new, "w1")
    assert same_owner_later is not None
    with pytest.raises(Fenced):
        await store.renew(old, {WEST: BIG})
    assert (await the_row(store)).checkpoints == {}


async def test_a_release_stores_the_last_checkpoints_and_keeps_the_wish(store: LeaseStore) -> None:
    lease = await taken(store)
    assert await store.ask(lease, "w2")
    await store.release(lease, {WEST: BIG})
    row = await the_row(store)
    assert (row.owner, row.wanted_by, row.checkpoints) == (None, "w2", {WEST: BIG})
    next_lease = await store.acquire(row, "w2")
    assert next_lease is not None
    assert (next_lease.wanted_by, next_lease.checkpoints) == (None, {WEST: BIG})


async def test_the_first_wish_stands(store: LeaseStore) -> None:
    lease = await taken(store)
    assert await store.ask(lease, "w2")
    assert await store.ask(lease, "w2")
    assert not await store.ask(lease, "w3")
    assert (await the_row(store)).wanted_by == "w2"
    assert not await store.ask(replace(lease, epoch=9), "w4")


async def test_only_an_unowned_row_as_it_was_seen_is_deleted(store: LeaseStore) -> None:
    lease = await taken(store)
    assert not await store.delete(lease)
    await store.release(lease, {})
    row = await the_row(store)
    assert not await store.delete(replace(row, epoch=row.epoch + 1))
    assert await store.delete(row)
    assert await store.rows(ORDERS) == []


async def test_a_lease_is_taken_and_a_row_deleted_only_as_it_was_seen(store: LeaseStore) -> None:
    lease = await taken(store)
    assert await store.ask(lease, "w2")
    assert await store.acquire(lease, "w3") is None, "somebody asked meanwhile"
    await store.release(lease, {})
    row = await the_row(store)
    for change in ({"wanted_by": None}, {"incarnation": "18"}, {"beat": row.beat + 1}, {"owner": "w1"}):
        assert await store.acquire(replace(row, **change), "w3") is None
        assert not await store.delete(replace(row, **change))
    assert await store.acquire(row, "w3") is not None


async def test_an_unowned_lease_can_not_be_asked_for(store: LeaseStore) -> None:
    await store.create(ORDERS, SHARD, "17")
    assert not await store.ask(await the_row(store), "w2")


async def test_a_renewal_tells_the_owner_who_asks(store: LeaseStore) -> None:
    lease = await taken(store)
    await store.ask(lease, "w2")
    assert (await store.renew(lease, {})).wanted_by == "w2"


async def test_an_owner_that_did_not_hear_of_its_last_beat_is_not_fenced(store: LeaseStore) -> None:
    lease = await taken(store)
    unheard = await store.renew(lease, {WEST: Checkpoint(TrimHorizon())})
    heard = await store.renew(lease, {WEST: BIG})
    assert heard.beat > unheard.beat
    await store.release(lease, {})
    assert (await the_row(store)).checkpoints == {WEST: BIG}


async def test_taking_and_releasing_again_with_the_same_words_changes_nothing(store: LeaseStore) -> None:
    """The answer to the first try may have been lost."""
    await store.create(ORDERS, SHARD, "17")
    seen = await the_row(store)
    lease = await store.acquire(seen, "w1")
    assert lease is not None
    assert await store.acquire(seen, "w1") == lease
    await store.release(lease, {WEST: BIG})
    row = await the_row(store)
    await store.release(lease, {WEST: BIG})
    assert await the_row(store) == row


async def test_the_start_of_a_link_is_what_was_proposed_first(store: LeaseStore) -> None:
    assert await store.link_start(ORDERS, WEST, AtTimestamp(5)) == AtTimestamp(5)
    assert await store.link_start(ORDERS, WEST, AtTimestamp(9)) == AtTimestamp(5)
    assert await store.link_start(ORDERS, SOUTH, TrimHorizon()) == TrimHorizon()
    assert await store.rows(ORDERS) == []


async def test_of_what_a_source_keeps_the_latest_time_stays(store: LeaseStore) -> None:
    assert await store.kept(ORDERS) is None
    await store.keep(ORDERS, Kept(24, 100))
    await store.keep(ORDERS, Kept(168, 100))
    assert await store.kept(ORDERS) == Kept(24, 100)
    await store.keep(ORDERS, Kept(168, 101))
    assert await store.kept(ORDERS) == Kept(168, 101)
    assert await store.kept(SourceName("others")) is None
    assert await store.rows(ORDERS) == []


# --- DynamoDB only -------------------------------------------------------------------------------------------------


@pytest.fixture
async def table(aws_url: str, new_name: Callable[[str], str]) -> str:
    name = new_name("leases")
    async with AwsSession().client("dynamodb", "us-east-1", aws_url) as client:
        await ensure_table(client, name)
    return name


@pytest.fixture
async def client(aws_url: str) -> AsyncIterator[Any]:
    async with AwsSession().client("dynamodb", "us-east-1", aws_url) as client:
        yield client


@pytest.fixture
async def proxy(aws_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(aws_url) as proxy:
        yield proxy


async def lost(proxy: Proxy, call: Awaitable[object]) -> None:
    """The call reaches the table, its answer reaches nobody."""
    proxy.drop_replies = True
    with pytest.raises(StoreUnavailable):
        await call
    proxy.drop_replies = False


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_true():
            await asyncio.sleep(0.01)


async def test_a_write_whose_answer_was_lost_may_be_repeated(proxy: Proxy, table: str) -> None:
    async with AwsSession().client("dynamodb", "us-east-1", proxy.url, timeout_s=1.0) as client:
        store = DynamoDbLeases(client, table)
        await store.create(ORDERS, SHARD, "17")
        seen = await the_row(store)
        await lost(proxy, store.acquire(seen, "w1"))
        lease = await store.acquire(seen, "w1")
        assert lease is not None
        assert lease.epoch == 1
        await lost(proxy, store.renew(lease, {WEST: Checkpoint(TrimHorizon())}))
        renewed = await store.renew(lease, {WEST: BIG})
        assert (renewed.owner, renewed.epoch, renewed.checkpoints) == ("w1", 1, {WEST: BIG})
        await lost(proxy, store.release(renewed, {SOUTH: BIG}))
        await store.release(renewed, {SOUTH: BIG})
        row = await the_row(store)
        assert (row.owner, row.checkpoints) == (None, {WEST: BIG, SOUTH: BIG})


async def test_a_client_that_repeats_by_itself_does_not_fence_its_owner(proxy: Proxy, table: str) -> None:
    """The first try takes effect unanswered, the second meets its own effect as a failed condition."""
    config = AioConfig(read_timeout=1.0, retries={"mode": "standard", "total_max_attempts": 6})
    session = aioboto3.Session()
    async with session.client("dynamodb", region_name="us-east-1", endpoint_url=proxy.url, config=config) as client:
        store = DynamoDbLeases(client, table)
        await store.create(ORDERS, SHARD, "17")

        async def unanswered_once(call: Awaitable[T]) -> T:
            proxy.drop_replies = True
            dropped = proxy.counters.bytes_dropped
            task = asyncio.ensure_future(call)
            await until(lambda: proxy.counters.bytes_dropped > dropped)
            proxy.drop_replies = False
            return await task

        lease = await unanswered_once(store.acquire(await the_row(store), "w1"))
        assert lease is not None
        assert (lease.owner, lease.epoch) == ("w1", 1)
        lease = await unanswered_once(store.renew(lease, {WEST: BIG}))
        assert (lease.owner, lease.epoch, lease.checkpoints) == ("w1", 1, {WEST: BIG})
        await unanswered_once(store.release(lease, {SOUTH: BIG}))
        assert (await the_row(store)).owner is None


async def test_a_renewal_delayed_on_its_way_puts_no_older_checkpoint_over_a_newer_one(
    proxy: Proxy, client: Any, table: str
) -> None:
    store = DynamoDbLeases(client, table)
    lease = await taken(store)
    async with AwsSession().client("dynamodb", "us-east-1", proxy.url) as slow_client:
        slow = DynamoDbLeases(slow_client, table)
        await slow.rows(ORDERS)
        proxy.drop_replies, proxy.delay_ms = True, 500
        sent = proxy.counters.bytes_up
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await slow.renew(lease, {WEST: Checkpoint(TrimHorizon())})
        assert proxy.counters.bytes_up == sent, "still on its way"
        newer = await store.renew(lease, {WEST: BIG})
        await until(lambda: proxy.counters.bytes_dropped > 0)
    assert proxy.counters.bytes_up > sent
    assert await the_row(store) == newer


async def test_rows_are_read_over_as_many_pages_as_there_are(client: Any, table: str) -> None:
    """A page of DynamoDB ends at 1 MB."""
    store = DynamoDbLeases(client, table)
    for number in range(12):
        await store.create(ORDERS, Shard(ShardId(f"s{number:02}"), (ShardId("p" * 100_000),)), "17")
    assert [row.shard for row in await store.rows(ORDERS)] == [f"s{number:02}" for number in range(12)]


async def test_a_missing_table_is_a_matter_for_an_operator(client: Any) -> None:
    with pytest.raises(Misconfigured, match="no-such-table"):
        await DynamoDbLeases(client, "no-such-table").rows(ORDERS)


async def test_a_table_with_other_keys_is_a_matter_for_an_operator(client: Any, new_name: Callable[[str], str]) -> None:
    name = new_name("foreign")
    await client.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with pytest.raises(Misconfigured, match="keys pk and sk"):
        await DynamoDbLeases(client, name).create(ORDERS, SHARD, "17")


async def test_a_store_that_can_not_be_reached_is_unavailable(proxy: Proxy, table: str) -> None:
    async with AwsSession().client("dynamodb", "us-east-1", proxy.url, timeout_s=1.0) as client:
        store = DynamoDbLeases(client, table)
        lease = await taken(store)
        proxy.cut()
        for call in (store.rows(ORDERS), store.renew(lease, {}), store.link_start(ORDERS, WEST, TrimHorizon())):
            with pytest.raises(StoreUnavailable, match=table):
                await call
        proxy.heal()
        assert await the_row(store) == lease


@pytest.mark.parametrize(
    ("attribute", "value"), [("v", {"N": "2"}), ("checkpoints", {"M": {"l": {"M": {"position": {"S": "?"}}}}})]
)
async def test_a_row_of_another_format_is_named_and_left_alone(
    client: Any, table: str, attribute: str, value: dict[str, object]
) -> None:
    store = DynamoDbLeases(client, table)
    await store.create(ORDERS, SHARD, "17")
    key = {"pk": {"S": "orders"}, "sk": {"S": f"shard#{SHARD.id}"}}
    await client.update_item(
        TableName=table,
        Key=key,
        UpdateExpression="SET #a = :v",
        ExpressionAttributeNames={"#a": attribute},
        ExpressionAttributeValues={":v": value},
    )
    with pytest.raises(ConfigError, match=str(SHARD.id)):
        await store.rows(ORDERS)


async def test_members_that_a_later_version_adds_are_ignored_and_a_renewal_replaces_only_checkpoints(
    client: Any, table: str
) -> None:
    store = DynamoDbLeases(client, table)
    await store.create(ORDERS, SHARD, "17")
    lease = await store.acquire(await the_row(store), "w1")
    assert lease is not None
    key = {"pk": {"S": "orders"}, "sk": {"S": f"shard#{SHARD.id}"}}
    later = {"M": {str(WEST): {"M": {"position": {"S": "trim_horizon"}, "hint": {"S": "?"}}}}}
    await client.update_item(
        TableName=table,
        Key=key,
        UpdateExpression="SET later = :z, checkpoints = :c",
        ExpressionAttributeValues={":z": {"S": "1"}, ":c": later},
    )
    assert (await the_row(store)).checkpoints == {WEST: Checkpoint(TrimHorizon())}
    await store.renew(lease, {WEST: Checkpoint(AtTimestamp(5))})
    stored = (await client.get_item(TableName=table, Key=key, ConsistentRead=True))["Item"]
    assert stored["later"] == {"S": "1"}
    assert "hint" not in stored["checkpoints"]["M"][WEST]["M"]


async def test_a_row_of_a_newer_format_is_not_taken_over_by_one_who_saw_it_before(client: Any, table: str) -> None:
    store = DynamoDbLeases(client, table)
    await store.create(ORDERS, SHARD, "17")
    await store.link_start(ORDERS, WEST, AtTimestamp(5))
    seen = await the_row(store)
    for sort in (f"shard#{SHARD.id}", f"link#{WEST}"):
        await client.update_item(
            TableName=table,
            Key={"pk": {"S": "orders"}, "sk": {"S": sort}},
            UpdateExpression="SET v = :v",
            ExpressionAttributeValues={":v": {"N": "2"}},
        )
    before = (await client.scan(TableName=table, ConsistentRead=True))["Items"]
    with pytest.raises(ConfigError, match="format version 2"):
        await store.acquire(seen, "w1")
    with pytest.raises(ConfigError, match="format version 2"):
        await store.link_start(ORDERS, WEST, AtTimestamp(9))
    assert (await client.scan(TableName=table, ConsistentRead=True))["Items"] == before


# --- one listing for a fleet ---------------------------------------------------------------------------------------


async def test_a_bulletin_is_read_as_posted_and_the_higher_number_stays(store: LeaseStore) -> None:
    assert await store.bulletin(ORDERS) is None
    second = Bulletin(2, bytes(range(256)))
    await store.post(ORDERS, second)
    await store.post(ORDERS, Bulletin(1, b"late"))
    await store.post(ORDERS, Bulletin(2, b"late as well"))
    assert await store.bulletin(ORDERS) == second
    await store.post(ORDERS, Bulletin(10, b"tenth"))
    assert await store.bulletin(ORDERS) == Bulletin(10, b"tenth")
    assert await store.bulletin(SourceName("others")) is None


async def test_a_turn_is_taken_once_and_none_below_it_afterwards(store: LeaseStore) -> None:
    assert await store.take_turn(ORDERS, 9)
    assert not await store.take_turn(ORDERS, 9)
    assert await store.take_turn(ORDERS, 10)
    assert not await store.take_turn(ORDERS, 9)
    assert await store.take_turn(SourceName("others"), 9)


async def test_of_many_that_want_a_turn_one_gets_it(store: LeaseStore) -> None:
    got = await asyncio.gather(*[store.take_turn(ORDERS, 1) for _ in range(8)])
    assert got.count(True) == 1


async def test_bulletins_and_turns_are_no_rows(store: LeaseStore) -> None:
    await store.take_turn(ORDERS, 1)
    await store.post(ORDERS, Bulletin(1, b"post"))
    assert await store.rows(ORDERS) == []
