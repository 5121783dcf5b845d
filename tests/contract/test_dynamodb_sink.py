"""A table as a sink, against moto: the greater version stays, whatever comes when, how often; losers are told."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import boto3
import pytest
from json_stub import Answers, Stub, refusal, stub

from replicator.adapters.dynamodb_sink import OTHER_SOURCE, PUTS_MAX, DynamoDbSink
from replicator.aws.dynamodb_api import PREFIX, DynamoDbApi
from replicator.aws.http import HttpPool
from replicator.aws.session import AwsSession
from replicator.aws.transport import JSON_1_0, JsonApi
from replicator.convergent import Writer
from replicator.core.convergence import CONFLICT, NEVER_DOUBLED_MS, SUPERSEDED, Rule
from replicator.core.model import Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.core.outcome import Passed
from replicator.core.table_changes import TableRules
from replicator.dev.proxy import Proxy
from replicator.errors import Misconfigured, Refused, TransientError
from replicator.ports import Entry

REGION, WEST = "us-east-1", "eu-west-1"
KEEP_MS = 14 * 86_400_000


def origin_of(data: bytes) -> Origin | None:
    name = json.loads(data).get("of")
    return None if name is None else Origin(Region(WEST), SourceName(name), "1", ShardId("1"), SequenceNumber(1))


def change(new: Any, old: Any = None, **more: Any) -> Entry:
    item = new or old
    images = {name: image for name, image in (("NewImage", new), ("OldImage", old)) if image is not None}
    names = {(True, False): "INSERT", (True, True): "MODIFY", (False, True): "REMOVE"}
    told = {
        "Keys": {name: item[name] for name in ("pk", "sk")},
        "SequenceNumber": "1",
        "ApproximateCreationDateTime": int(time.time()),
        **images,
    }
    event = {"eventName": names[new is not None, old is not None], "dynamodb": told, **more}
    return Entry(json.dumps(event).encode(), item["pk"]["S"])


def key(number: int) -> dict[str, Any]:
    return {"pk": {"S": f"k{number}"}, "sk": {"S": "0"}}


class Table:
    def __init__(self, url: str, name: str) -> None:
        self.client: Any = boto3.client("dynamodb", region_name=REGION, endpoint_url=url)
        self.name = name
        self.client.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in ("pk", "sk")],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )

    def item(self, number: int) -> Any:
        return self.client.get_item(TableName=self.name, Key=key(number)).get("Item")

    def changes(self) -> int:
        """How many writes its stream has told."""
        streams: Any = boto3.client("dynamodbstreams", region_name=REGION, endpoint_url=self.client.meta.endpoint_url)
        arn = self.client.describe_table(TableName=self.name)["Table"]["LatestStreamArn"]
        [shard] = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
        asked = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        return len(streams.get_records(ShardIterator=streams.get_shard_iterator(**asked)["ShardIterator"])["Records"])


@pytest.fixture
async def http() -> AsyncIterator[HttpPool]:
    async with HttpPool(64) as opened:
        yield opened


Sinks = Callable[..., DynamoDbSink]


@pytest.fixture
def sink_at(http: HttpPool) -> Sinks:
    def made(url: str, name: str = "t", timeout_s: float = 5.0, rule: Rule | None = None, **more: Any) -> DynamoDbSink:
        api = JsonApi(
            http, AwsSession(), service="dynamodb", region=REGION, url=url, prefix=PREFIX, content_type=JSON_1_0
        )
        rules = TableRules(name, Region(REGION), rule or Rule(), KEEP_MS)
        return DynamoDbSink(DynamoDbApi(api, name, timeout_s), rules=rules, origin_of=origin_of, **more)

    return made


@pytest.fixture
def table(aws_url: str, new_name: Callable[[str], str]) -> Table:
    return Table(aws_url, new_name("sink"))


@pytest.fixture
def west() -> Writer:
    return Writer(WEST)


@pytest.fixture
def east() -> Writer:
    return Writer(REGION)


def put(writer: Writer, number: int = 0, *, over: Any = None, **attributes: Any) -> dict[str, Any]:
    item: dict[str, Any] = writer.put({**key(number), **attributes}, over=over)["Item"]
    return item


def reasons(results: Any) -> list[Any]:
    return [result.reason if isinstance(result, Passed | Refused) else result for result in results]


# --- which item stays ----------------------------------------------------------------------------------------------

EVERY_TYPE: dict[str, Any] = {
    "n": {"N": "-12345678901234567890.5"},
    "b": {"B": "AP8="},
    "ss": {"SS": ["x", "y"]},
    "ns": {"NS": ["1", "2.5"]},
    "bs": {"BS": ["AP8="]},
    "m": {"M": {"l": {"L": [{"NULL": True}, {"BOOL": False}, {"S": "käse \U0001f600"}]}}},
}


async def test_items_are_put_as_they_were_written_of_every_type(
    table: Table, sink_at: Sinks, aws_url: str, west: Writer
) -> None:
    items = [put(west, number, **EVERY_TYPE) for number in range(50)]
    assert list(await sink_at(aws_url, table.name).put([change(item) for item in items])) == [None] * 50
    plain: Any = boto3.client("dynamodb", region_name=REGION, endpoint_url=aws_url)
    stored = plain.scan(TableName=table.name)["Items"]
    assert sorted(item["pk"]["S"] for item in stored) == sorted(item["pk"]["S"] for item in items)
    written: Any = {**items[7], "b": {"B": b"\x00\xff"}, "bs": {"BS": [b"\x00\xff"]}}
    assert table.item(7) == written


async def test_the_greater_version_stays_and_what_loses_is_told_with_both(
    table: Table, sink_at: Sinks, aws_url: str, west: Writer, east: Writer
) -> None:
    sink = sink_at(aws_url, table.name)
    loser = put(west, n={"N": "1"})
    winner = put(east, over=loser, n={"N": "2"})
    assert list(await sink.put([change(winner)])) == [None]
    [lost] = await sink.put([change(loser)])
    assert isinstance(lost, Passed)
    assert lost.reason == CONFLICT
    assert loser["version"]["S"] in lost.detail
    assert winner["version"]["S"] in lost.detail
    assert table.item(0) == winner
    assert list(await sink.put([change(put(west, over=winner, n={"N": "3"}))])) == [None]
    assert table.item(0)["n"] == {"N": "3"}


async def test_a_change_that_comes_again_writes_nothing_and_so_tells_nothing(
    table: Table, sink_at: Sinks, aws_url: str, west: Writer
) -> None:
    sink = sink_at(aws_url, table.name)
    first = put(west, n={"N": "1"})
    second = put(west, over=first, n={"N": "2"})
    for _ in range(3):
        assert reasons(await sink.put([change(second, first)])) == [None]
        assert reasons(await sink.put([change(first)])) == [SUPERSEDED]
    assert table.item(0) == second
    assert table.changes() == 1
    assert sink.limits.repeats_dropped_ms == NEVER_DOUBLED_MS


async def test_deletions_stay_as_tombstones_and_older_changes_do_not_bring_items_back(
    table: Table, sink_at: Sinks, aws_url: str, west: Writer, east: Writer
) -> None:
    sink = sink_at(aws_url, table.name)
    older = put(east)
    item = put(west, over=older)
    tombstone = west.delete(key(0), over=item)["Item"]
    assert list(await sink.put([change(item)])) == [None]
    assert list(await sink.put([change(tombstone, item)])) == [None]
    assert reasons(await sink.put([change(older)])) == [CONFLICT]
    assert west.is_deleted(table.item(0))


async def test_what_comes_after_tombstones_are_gone_is_a_conflict_unless_an_item_stands(
    table: Table, sink_at: Sinks, aws_url: str, west: Writer
) -> None:
    later = sink_at(aws_url, table.name, now_ms=lambda: time.time_ns() // 1_000_000 + KEEP_MS)
    first = put(west)
    [late] = await later.put([change(first)])
    assert isinstance(late, Passed)
    assert (late.reason, "too late" in late.detail, table.item(0)) == (CONFLICT, True, None)
    assert list(await sink_at(aws_url, table.name).put([change(first)])) == [None]
    second = put(west, over=first)
    assert list(await later.put([change(second, first)])) == [None]
    assert table.item(0) == second


async def test_a_removal_leaves_a_grave_of_this_region(
    table: Table, sink_at: Sinks, aws_url: str, west: Writer
) -> None:
    sink = sink_at(aws_url, table.name)
    item = put(west, n={"N": "1"})
    assert list(await sink.put([change(item)])) == [None]
    assert list(await sink.put([change(None, item)])) == [None]
    grave = table.item(0)
    assert grave["awsregion"] == {"S": REGION}
    assert west.is_deleted(grave)
    assert "n" not in grave
    assert reasons(await sink.put([change(item)])) == [SUPERSEDED]


async def test_an_order_of_ones_own(table: Table, sink_at: Sinks, aws_url: str) -> None:
    sink = sink_at(aws_url, table.name, rule=Rule(order=("priority", "revision")))

    def revised(priority: int, revision: int, region: str = WEST) -> Entry:
        numbers = {"priority": {"N": str(priority)}, "revision": {"N": str(revision)}}
        return change({**key(0), **numbers, "awsregion": {"S": region}})

    results = []
    for entry in (
        revised(1, 9),
        revised(2, 1),
        revised(1, 10),
        revised(2, 10, "ap-southeast-2"),
        revised(2, 10),
        revised(2, 9, REGION),
    ):
        results += reasons(await sink.put([entry]))
    assert results == [None, None, SUPERSEDED, None, None, CONFLICT]
    assert table.item(0)["awsregion"] == {"S": WEST}


async def test_items_from_before_versions_are_replaced_and_changes_without_one_are_not_convergent(
    table: Table, sink_at: Sinks, aws_url: str, west: Writer
) -> None:
    table.client.put_item(TableName=table.name, Item=key(0))
    sink = sink_at(aws_url, table.name)
    good = put(west)
    [bare, none] = await sink.put([change({**key(1), "n": {"N": "1"}}), change(good)])
    assert isinstance(bare, Refused)
    assert bare.reason == "not_convergent"
    assert none is None
    assert (table.item(0), table.item(1)) == (good, None)


async def test_events_of_other_sources_are_passed_over_and_such_that_are_no_changes_refused(
    table: Table, sink_at: Sinks, aws_url: str, west: Writer
) -> None:
    sink = sink_at(aws_url, table.name, changes_of=SourceName("orders"))
    event = Entry(b'{"of":"clicks","id":"1"}', "k")
    results = await sink.put([event, change(put(west), of="orders"), Entry(b'{"of":"orders","id":"2"}', "k")])
    assert results[0] == Passed(OTHER_SOURCE)
    assert results[1] is None
    assert isinstance(results[2], Refused)
    assert "mode raw" in str(results[2])


# --- what services write -------------------------------------------------------------------------------------------


def test_dynamodb_takes_a_writers_arguments_from_clients_and_from_resources(table: Table, east: Writer) -> None:
    resource: Any = boto3.resource("dynamodb", region_name=REGION, endpoint_url=table.client.meta.endpoint_url)
    plain = Writer(REGION, plain=True, now_s=lambda: time.time() + 5)
    behind = Writer(REGION, now_s=lambda: time.time() - 5)
    table.client.put_item(TableName=table.name, **east.put({**key(0), "n": {"N": "1"}, "x": {"S": "x"}}))
    with pytest.raises(table.client.exceptions.ConditionalCheckFailedException) as caught:
        table.client.put_item(TableName=table.name, **behind.put(key(0)))
    stored = caught.value.response["Item"]
    assert stored == table.item(0)
    values = {"n": {"N": "2"}}
    table.client.update_item(TableName=table.name, **behind.update(key(0), values, remove=["x"], over=stored))
    updated = table.item(0)
    assert ("x" in updated, updated["n"]) == (False, {"N": "2"})
    assert updated["version"]["S"] > stored["version"]["S"]
    resource.Table(table.name).put_item(**plain.delete({"pk": "k0", "sk": "0"}))
    assert east.is_deleted(table.item(0))
    assert int(table.item(0)["expires"]["N"]) > time.time()
    read = resource.Table(table.name).get_item(Key={"pk": "k0", "sk": "0"})["Item"]
    resource.Table(table.name).update_item(**plain.update({"pk": "k0", "sk": "0"}, {"n": 3}, over=read))
    again = table.item(0)
    assert not east.is_deleted(again)
    assert "expires" not in again


# --- what is not written, and what nobody knows --------------------------------------------------------------------


async def test_an_item_that_is_too_large_is_refused_alone(
    table: Table, sink_at: Sinks, aws_url: str, west: Writer
) -> None:
    huge = put(west, 1, x={"S": "x" * 410_000})
    results = await sink_at(aws_url, table.name).put([change(put(west, 0)), change(huge), change(put(west, 2))])
    assert [results[0], results[2]] == [None, None]
    assert isinstance(results[1], Refused)
    assert "Item size" in str(results[1])


async def test_a_lost_reply_is_no_doubt_but_sent_again_and_written_once(
    table: Table, sink_at: Sinks, aws_url: str, west: Writer
) -> None:
    async with Proxy(aws_url) as proxy:
        sink = sink_at(proxy.url, table.name, 0.5)
        await sink.put([change(put(west, 9))])
        entries = [change(put(west, number)) for number in range(2)]
        proxy.drop_replies = True
        with pytest.raises(TransientError) as lost:
            await sink.put(entries)
        assert lost.value.code == "no_answer"
        proxy.cut()
        proxy.heal()
        proxy.drop_replies = False
        assert list(await sink.put(entries)) == [None, None]
    assert table.changes() == 3


async def test_a_table_that_is_not_there_or_has_other_keys_is_told(
    table: Table, sink_at: Sinks, aws_url: str, west: Writer
) -> None:
    sink = sink_at(aws_url, "nobodys")
    for call in (sink.put([change(put(west))]), sink.peer_time()):
        with pytest.raises(Misconfigured, match="ResourceNotFound"):
            await call
    stranger = Entry(change(put(west)).data.replace(b'"sk"', b'"at"'), "k")
    [refused] = await sink_at(aws_url, table.name).put([stranger])
    assert isinstance(refused, Refused)
    assert "has the keys pk, sk" in str(refused)


async def test_nothing_is_read_back_and_the_clock_comes_with_every_answer(
    table: Table, sink_at: Sinks, aws_url: str
) -> None:
    sink = sink_at(aws_url, table.name)
    found = await sink.read_back(0, origin_of, records_max=10)
    assert (found.origins, found.is_complete) == (frozenset(), False)
    before = await sink.peer_time()
    assert before.latest_ms - before.earliest_ms < 20_000
    assert not await sink.refuses(before.earliest_ms)


# --- answers that emulators don't give -----------------------------------------------------------------------------

KEY_SCHEMA = [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}]
EXPIRED = "Signature expired: 20261125T000000Z is now earlier than 20261125T000500Z"


def table_that(answer: Callable[[dict[str, Any]], Any], **description: Any) -> Answers:
    return {"DescribeTable": lambda _: {"Table": {"KeySchema": KEY_SCHEMA, **description}}, "PutItem": answer}


async def test_items_fail_singly(sink_at: Sinks, west: Writer) -> None:
    codes = {
        "k1": refusal("ProvisionedThroughputExceededException"),
        "k2": refusal("ValidationException", "no such item"),
        "k3": refusal("TransactionConflictException"),
        "k4": refusal("InternalServerError", status=500),
    }
    async with stub(table_that(lambda asked: codes.get(asked["Item"]["pk"]["S"], {}))) as service:
        results = await sink_at(service.url).put([change(put(west, number)) for number in range(5)])
    assert [*results[:2], *results[3:]] == [None, "throttled", "busy", "no_answer"]
    assert isinstance(results[2], Refused)
    assert "no such item" in str(results[2])


@pytest.mark.parametrize(
    ("code", "status", "kind", "ours"),
    [
        ("ThrottlingException", 400, TransientError, "throttled"),
        ("AccessDeniedException", 400, Misconfigured, "AccessDeniedException"),
        ("InternalServerError", 500, TransientError, "no_answer"),
    ],
)
async def test_what_all_items_meet_is_an_error_of_the_request(
    sink_at: Sinks, west: Writer, code: str, status: int, kind: type[TransientError], ours: str
) -> None:
    async with stub(table_that(lambda _: refusal(code, status=status))) as service:
        with pytest.raises(kind) as caught:
            await sink_at(service.url).put([change(put(west, number)) for number in range(3)])
    assert caught.value.code == ours


async def test_a_failed_condition_whose_item_can_not_be_read_is_asked_again(sink_at: Sinks, west: Writer) -> None:
    def broken(_: Any) -> Any:
        response = refusal("ConditionalCheckFailedException")
        response.text = '{"__type":"x#ConditionalCheckFailedException","Item":7}'
        return response

    async with stub(table_that(broken)) as service:
        with pytest.raises(TransientError) as caught:
            await sink_at(service.url).put([change(put(west))])
    assert caught.value.code == "bad_reply"


async def test_a_global_table_is_refused_before_anything_is_written(sink_at: Sinks, west: Writer) -> None:
    async with stub(table_that(lambda _: {}, Replicas=[{"RegionName": WEST}])) as service:
        with pytest.raises(Misconfigured, match="global table"):
            await sink_at(service.url).put([change(put(west))])
        assert service.requests("PutItem") == []


async def test_so_many_at_a_time_and_the_table_is_looked_at_once(sink_at: Sinks, west: Writer) -> None:
    class Counting(Stub):
        now = most = 0

        async def serve(self, request: Any) -> Any:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.01)
            try:
                return await super().serve(request)
            finally:
                self.now -= 1

    service = Counting(table_that(lambda _: {}))
    async with stub(service.answers, service):
        sink = sink_at(service.url)
        for _ in range(2):
            assert list(await sink.put([change(put(west, number)) for number in range(100)])) == [None] * 100
    assert service.most == PUTS_MAX
    assert len(service.requests("DescribeTable")) == 1


async def test_an_expired_date_is_refused_and_a_request_of_one_is_late(sink_at: Sinks, west: Writer) -> None:
    answers = table_that(lambda _: refusal("InvalidSignatureException", EXPIRED))
    async with stub(answers) as service:
        sink = sink_at(service.url)
        with pytest.raises(TransientError) as late:
            await sink.put([change(put(west))], signed_ms=1_000_000)
        service.answers["DescribeTable"] = lambda _: refusal("InvalidSignatureException", EXPIRED)
        assert await sink.refuses(1_000_000)
    assert late.value.code == "late"
