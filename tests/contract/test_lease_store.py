"""What every lease store promises: one owner an epoch, nothing written by a former one. Memory and DynamoDB."""

from collections.abc import AsyncIterator, Callable

import pytest
from msgspec.structs import replace

from replicator.adapters.dynamodb_leases import DynamoDbLeases, ensure_table
from replicator.adapters.memory_leases import MemoryLeases
from replicator.aws.session import AwsSession
from replicator.core.model import (
    After,
    AtTimestamp,
    Checkpoint,
    ClaimMark,
    Lease,
    LinkName,
    SequenceNumber,
    Shard,
    ShardEnd,
    ShardId,
    SourceName,
    TrimHorizon,
)
from replicator.dev.proxy import Proxy
from replicator.errors import ConfigError, Fenced, Misconfigured, StoreUnavailable
from replicator.ports import LeaseStore

ORDERS = SourceName("orders")
SHARD = Shard(ShardId("shardId-000000000002"), (ShardId("shardId-000000000000"), ShardId("shardId-000000000001")))
WEST, SOUTH = LinkName("orders:eu-west-1"), LinkName("orders:ap-southeast-2")
BIG = Checkpoint(After(SequenceNumber(10**128 + 7)), 1_700_000_000_123, ClaimMark("ab:cd", 12))


@pytest.fixture(params=["memory", "dynamodb"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[LeaseStore]:
    if request.param == "memory":
        yield MemoryLeases()
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
    [Checkpoint(TrimHorizon()), Checkpoint(AtTimestamp(5), 0), Checkpoint(ShardEnd(), 9, ClaimMark("", 0)), BIG],
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


async def test_the_start_of_a_link_is_what_was_proposed_first(store: LeaseStore) -> None:
    assert await store.link_start(ORDERS, WEST, AtTimestamp(5)) == AtTimestamp(5)
    assert await store.link_start(ORDERS, WEST, AtTimestamp(9)) == AtTimestamp(5)
    assert await store.link_start(ORDERS, SOUTH, TrimHorizon()) == TrimHorizon()
    assert await store.rows(ORDERS) == []


# --- DynamoDB only -------------------------------------------------------------------------------------------------


async def test_a_write_whose_answer_was_lost_may_be_repeated(aws_url: str, new_name: Callable[[str], str]) -> None:
    table = new_name("leases")
    async with (
        Proxy(aws_url) as proxy,
        AwsSession().client("dynamodb", "us-east-1", proxy.url, timeout_s=1.0) as client,
    ):
        await ensure_table(client, table)
        store = DynamoDbLeases(client, table)
        await store.create(ORDERS, SHARD, "17")
        seen = await the_row(store)
        proxy.drop_replies = True
        with pytest.raises(StoreUnavailable, match=table):
            await store.acquire(seen, "w1")
        proxy.drop_replies = False
        lease = await store.acquire(seen, "w1")
        assert lease is not None
        assert lease.epoch == 1
        proxy.drop_replies = True
        with pytest.raises(StoreUnavailable):
            await store.release(lease, {WEST: BIG})
        proxy.drop_replies = False
        await store.release(lease, {WEST: BIG})
        assert (await the_row(store)).owner is None


async def test_a_missing_table_is_a_matter_for_an_operator(aws_url: str) -> None:
    async with AwsSession().client("dynamodb", "us-east-1", aws_url) as client:
        with pytest.raises(Misconfigured, match="no-such-table"):
            await DynamoDbLeases(client, "no-such-table").rows(ORDERS)


@pytest.mark.parametrize(
    ("attribute", "value"), [("v", {"N": "2"}), ("checkpoints", {"M": {"l": {"M": {"position": {"S": "?"}}}}})]
)
async def test_a_row_of_another_format_is_named_and_left_alone(
    aws_url: str, new_name: Callable[[str], str], attribute: str, value: dict[str, object]
) -> None:
    table = new_name("leases")
    async with AwsSession().client("dynamodb", "us-east-1", aws_url) as client:
        await ensure_table(client, table)
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
