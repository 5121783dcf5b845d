"""A table's stream as a source: against an endpoint that closes, trims and expires as AWS does, and against moto."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import boto3
import pytest
from dynamodb_streams_endpoint import TABLE, TableStream, now_ms, serve

from replicator.adapters.dynamodb_streams_source import DynamoDbStreamsSource
from replicator.aws.dynamodb_streams_api import STREAMS_PREFIX, TABLE_PREFIX, DynamoDbStreamsApi
from replicator.aws.http import HttpPool
from replicator.aws.session import AwsSession
from replicator.aws.transport import JSON_1_0, JsonApi
from replicator.core.model import After, AtTimestamp, Position, SequenceNumber, ShardEnd, ShardId, TrimHorizon
from replicator.errors import Misconfigured, PositionLost, TransientError
from replicator.ports import Cursor, Page

REGION = "us-east-1"


@pytest.fixture
def table() -> TableStream:
    return TableStream()


@pytest.fixture
async def url(table: TableStream) -> AsyncIterator[str]:
    async with serve(table) as url:
        yield url


@pytest.fixture
async def source(url: str) -> AsyncIterator[DynamoDbStreamsSource]:
    async with HttpPool(4) as http:
        yield source_of(api_of(http, url, TABLE))


def api_of(http: Any, url: str, table: str) -> DynamoDbStreamsApi:
    tables, streams = [
        JsonApi(http, AwsSession(), service="dynamodb", region=REGION, url=url, prefix=prefix, content_type=JSON_1_0)
        for prefix in (TABLE_PREFIX, STREAMS_PREFIX)
    ]
    return DynamoDbStreamsApi(tables, streams, table, 5.0)


def source_of(api: DynamoDbStreamsApi, *, is_global_ok: bool = False) -> DynamoDbStreamsSource:
    return DynamoDbStreamsSource(api, is_global_ok=is_global_ok, needs_images=True)


def numbers(page: Page) -> list[int]:
    return [int(json.loads(record.data)["dynamodb"]["NewImage"]["n"]["N"]) for record in page.records]


async def read(source: DynamoDbStreamsSource, shard: ShardId, position: Position, records_max: int = 100) -> Page:
    return await source.read(await source.open(shard, position), records_max)


def following(page: Page) -> Cursor:
    assert page.next is not None
    return page.next


async def test_changes_come_in_order_under_the_key_of_their_item(
    table: TableStream, source: DynamoDbStreamsSource
) -> None:
    began_ms = now_ms()
    for number in range(5):
        table.write(f"order-{number % 2}", number)
    page = await read(source, table.first, TrimHorizon(), 3)
    assert numbers(page) == [0, 1, 2]
    assert [record.partition_key for record in page.records] == ["order-0", "order-1", "order-0"]
    assert all(began_ms - 1000 <= record.arrival_ms <= now_ms() for record in page.records)
    assert page.behind_ms > 0
    rest = await source.read(following(page), 3)
    assert numbers(rest) == [3, 4]
    tip = await source.read(following(rest), 3)
    assert (tip.records, tip.behind_ms) == ((), 0)
    assert following(tip).position == After(rest.records[-1].sequence)


async def test_behind_a_number_comes_exactly_the_next_change(table: TableStream, source: DynamoDbStreamsSource) -> None:
    for number in range(4):
        table.write("k", number)
    page = await read(source, table.first, TrimHorizon())
    assert numbers(await read(source, table.first, After(page.records[1].sequence))) == [2, 3]


async def test_a_closed_shard_ends_and_its_children_name_it_over_all_pages_of_the_list(
    table: TableStream, source: DynamoDbStreamsSource
) -> None:
    table.write("k", 1)
    first = table.first
    children = table.stream.split(first)
    grandchildren = table.stream.split(children[0])
    page = await read(source, first, TrimHorizon())
    assert (numbers(page), page.next) == ([1], None)
    listed = {shard.id: shard.parents for shard in await source.shards()}
    assert listed == {first: (), **dict.fromkeys(children, (first,)), **dict.fromkeys(grandchildren, (children[0],))}
    assert await read(source, first, ShardEnd()) == Page((), None, 0)


async def test_a_time_passes_over_what_is_older_and_keeps_its_place(
    table: TableStream, source: DynamoDbStreamsSource
) -> None:
    for number in range(4):
        table.write("k", number)
    await asyncio.sleep((2000 - now_ms() % 1000) / 1000)  # times of changes are whole seconds
    since = AtTimestamp(now_ms())
    page = await read(source, table.first, since, 2)
    assert page.records == ()
    assert page.behind_ms > 0
    assert following(page).position == since
    table.expire_iterators()
    table.write("k", 4)
    seen: list[int] = []
    while page.behind_ms:
        page = await source.read(following(page), 2)
        seen += numbers(page)
    assert seen == [4]


@pytest.mark.parametrize("records_max", [1, 100])
async def test_an_expired_iterator_is_renewed_at_the_exact_place(
    table: TableStream, source: DynamoDbStreamsSource, records_max: int
) -> None:
    for number in range(3):
        table.write("k", number)
    page = await read(source, table.first, TrimHorizon(), 1)
    table.expire_iterators()
    assert numbers(await source.read(following(page), records_max)) == [1, 2][:records_max]


async def test_what_was_trimmed_is_a_lost_position_and_the_horizon_goes_on(
    table: TableStream, source: DynamoDbStreamsSource
) -> None:
    for number in range(4):
        table.write("k", number)
    page = await read(source, table.first, TrimHorizon(), 1)
    table.stream.trim(table.first, 2)
    with pytest.raises(PositionLost) as lost:
        await source.read(following(page), 10)
    assert lost.value.is_trimmed
    place = After(page.records[0].sequence)
    assert await source.is_kept(table.first, place)  # because it is refused:
    with pytest.raises(PositionLost) as lost:
        await source.open(table.first, place)
    assert lost.value.is_trimmed
    assert numbers(await read(source, table.first, TrimHorizon())) == [2, 3]


async def test_a_shard_that_is_gone_is_lost_and_a_table_that_is_gone_is_for_an_operator(
    table: TableStream, source: DynamoDbStreamsSource, url: str
) -> None:
    await source.describe()
    with pytest.raises(PositionLost) as lost:
        await source.open(ShardId("shardId-1-gone"), TrimHorizon())
    assert not lost.value.is_trimmed
    async with HttpPool(1) as http:
        with pytest.raises(Misconfigured, match="DescribeTable"):
            await source_of(api_of(http, url, "orders-of-nobody")).describe()


@pytest.mark.parametrize("code", ["ProvisionedThroughputExceededException", "LimitExceededException"])
async def test_a_throttled_read_can_be_repeated(table: TableStream, source: DynamoDbStreamsSource, code: str) -> None:
    table.write("k", 1)
    cursor = await source.open(table.first, TrimHorizon())
    table.errors = [code]
    with pytest.raises(TransientError) as throttled:
        await source.read(cursor, 10)
    assert throttled.value.code == "throttled"
    assert numbers(await source.read(cursor, 10)) == [1]


async def test_a_stream_made_anew_is_another_incarnation(table: TableStream, source: DynamoDbStreamsSource) -> None:
    first = await source.describe()
    assert abs(int(first.incarnation) - now_ms()) < 60_000
    assert first.retention_ms == 24 * 3_600_000
    table.stream.recreate()
    assert int((await source.describe()).incarnation) > int(first.incarnation)
    table.write("k", 9)
    assert numbers(await read(source, table.first, TrimHorizon())) == [9]


async def test_a_table_without_a_stream_or_without_images_says_what_to_switch_on(
    table: TableStream, source: DynamoDbStreamsSource
) -> None:
    for view_type in (None, "KEYS_ONLY"):
        table.view_type = view_type
        with pytest.raises(Misconfigured, match="NEW_AND_OLD_IMAGES"):
            await source.describe()


async def test_a_global_table_needs_a_rule_that_tells_the_writer(
    table: TableStream, source: DynamoDbStreamsSource, url: str
) -> None:
    table.replicas = ["eu-west-1"]
    with pytest.raises(Misconfigured, match="written_here"):
        await source.describe()
    async with HttpPool(1) as http:
        await source_of(api_of(http, url, TABLE), is_global_ok=True).describe()


async def test_a_reply_that_is_none_is_transient_and_says_so(table: TableStream, source: DynamoDbStreamsSource) -> None:
    table.write("k", 1)
    cursor = await source.open(table.first, TrimHorizon())
    source._hash_key = "another"
    with pytest.raises(TransientError) as unread:
        await source.read(cursor, 10)
    assert unread.value.code == "bad_reply"


async def test_against_moto(aws_url: str, new_name: Callable[[str], str]) -> None:
    name = new_name("table")
    client: Any = boto3.client("dynamodb", region_name=REGION, endpoint_url=aws_url)
    client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    for number in range(3):
        client.put_item(TableName=name, Item={"pk": {"N": "7"}, "n": {"N": str(number)}})
    client.delete_item(TableName=name, Key={"pk": {"N": "7"}})
    async with HttpPool(2) as http:
        source = source_of(api_of(http, aws_url, name))
        assert abs(int((await source.describe()).incarnation) - now_ms()) < 60_000
        [shard] = await source.shards()
        page = await read(source, shard.id, TrimHorizon(), 2)
        names = [json.loads(record.data)["eventName"] for record in page.records]
        rest = await source.read(following(page), 10)
        names += [json.loads(record.data)["eventName"] for record in rest.records]
        tip = await source.read(following(rest), 10)
        again = await read(source, shard.id, After(SequenceNumber(page.records[-1].sequence)))
    assert names == ["INSERT", "MODIFY", "MODIFY", "REMOVE"]
    assert {record.partition_key for record in (*page.records, *rest.records)} == {"7"}
    assert again.records == rest.records
    assert (tip.records, tip.behind_ms) == ((), 0)
