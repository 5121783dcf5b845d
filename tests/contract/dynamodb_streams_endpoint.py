"""DynamoDB Streams over HTTP as AWS serves it, for what moto doesn't do: shards that close, trim and expire.

Behind it stands a stream in memory. The test holds both: it writes changes, closes shards, trims, expires iterators.
"""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from replicator.adapters.memory_stream import MemoryStream
from replicator.core.model import ShardId
from replicator.ports import Entry

TABLE = "orders"
SHARDS_A_PAGE = 2


def now_ms() -> int:
    return int(time.time() * 1000)


class RefusedCall(Exception):
    """The error that a call is answered with."""


class TableStream:
    """A table with a stream. Its attributes may be changed by the test."""

    def __init__(self) -> None:
        self.stream = MemoryStream(now_ms)
        self.view_type: str | None = "NEW_AND_OLD_IMAGES"
        self.replicas: list[str] = []
        self.errors: list[str] = []
        """Codes that the next calls of GetRecords are answered with."""
        self.iterators = 0
        """How many were made."""
        self._expired = 0

    @property
    def first(self) -> ShardId:
        return self.stream.list_shards()[0].id

    def write(self, key: str, number: int) -> None:
        """An item's new state, as a change record."""
        item = {"pk": {"S": key}, "n": {"N": str(number)}}
        change = {"ApproximateCreationDateTime": now_ms() // 1000, "Keys": {"pk": {"S": key}}, "NewImage": item}
        record = {"eventID": "x", "eventName": "INSERT", "dynamodb": change}
        self.stream.store(Entry(json.dumps(record).encode(), key))

    def expire_iterators(self) -> None:
        self._expired = self.iterators

    # --- the calls -------------------------------------------------------------------------------------------------

    async def answer(self, request: web.Request) -> web.Response:
        assert request.headers["Content-Type"] == "application/x-amz-json-1.0"
        prefix, _, operation = request.headers["X-Amz-Target"].partition(".")
        assert prefix == ("DynamoDB_20120810" if operation == "DescribeTable" else "DynamoDBStreams_20120810")
        try:
            found = getattr(self, f"_{operation}")(json.loads(await request.read()))
        except RefusedCall as exc:
            code = f"com.amazonaws.dynamodb.v20120810#{exc}"
            return web.json_response({"__type": code, "message": "no"}, status=400)
        return web.json_response(found)

    def _arn(self) -> str:
        return f"arn:aws:dynamodb:us-east-1:1:table/{TABLE}/stream/{self.stream.created_ms}"

    def _DescribeTable(self, asked: Any) -> Any:  # noqa: N802 - named as the call
        if asked["TableName"] != TABLE:
            raise RefusedCall("ResourceNotFoundException")
        schema = [
            {"AttributeName": "sk", "KeyType": "RANGE"},
            {"AttributeName": "pk", "KeyType": "HASH"},
        ]
        table: dict[str, Any] = {"TableName": TABLE, "KeySchema": schema}
        if self.view_type is not None:
            table["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": self.view_type}
            table["LatestStreamArn"] = self._arn()
        if self.replicas:
            table["Replicas"] = [{"RegionName": region} for region in self.replicas]
        return {"Table": table}

    def _DescribeStream(self, asked: Any) -> Any:  # noqa: N802
        if asked["StreamArn"] != self._arn():
            raise RefusedCall("ResourceNotFoundException")
        shards = self.stream.list_shards()
        ids = [shard.id for shard in shards]
        begin = ids.index(asked["ExclusiveStartShardId"]) + 1 if "ExclusiveStartShardId" in asked else 0
        end = begin + min(SHARDS_A_PAGE, asked.get("Limit", 100))
        page = [{"ShardId": s.id, **({"ParentShardId": s.parents[0]} if s.parents else {})} for s in shards[begin:end]]
        description = {"CreationRequestDateTime": self.stream.created_ms / 1000, "Shards": page}
        if end < len(shards):
            description["LastEvaluatedShardId"] = ids[end - 1]
        return {"StreamDescription": description}

    def _GetShardIterator(self, asked: Any) -> Any:  # noqa: N802
        shard = asked["ShardId"]
        if shard not in [listed.id for listed in self.stream.list_shards()]:
            raise RefusedCall("ResourceNotFoundException")
        position = "trim_horizon"
        if asked["ShardIteratorType"] != "TRIM_HORIZON":
            assert asked["ShardIteratorType"] == "AFTER_SEQUENCE_NUMBER"
            position = asked["SequenceNumber"]
            self._check_kept(shard, int(position))
        self.iterators += 1
        return {"ShardIterator": f"{self.iterators}/{shard}/{position}"}

    def _check_kept(self, shard: ShardId, sequence: int) -> None:
        records = self.stream.records(shard)
        if records and sequence < records[0].sequence:
            raise RefusedCall("TrimmedDataAccessException")

    def _GetRecords(self, asked: Any) -> Any:  # noqa: N802
        if self.errors:
            raise RefusedCall(self.errors.pop(0))
        number, shard, position = asked["ShardIterator"].split("/")
        if int(number) <= self._expired:
            raise RefusedCall("ExpiredIteratorException")
        after = -1 if position == "trim_horizon" else int(position)
        if after >= 0:
            self._check_kept(shard, after)
        records = [record for record in self.stream.records(shard) if record.sequence > after][: asked["Limit"]]
        found: list[Any] = []
        for record in records:
            change = json.loads(record.data)
            change["dynamodb"]["SequenceNumber"] = record.number
            found.append(change)
        reply: dict[str, Any] = {"Records": found}
        is_closed = any(shard in child.parents for child in self.stream.list_shards())
        if not is_closed or len(records) == asked["Limit"]:
            self.iterators += 1
            end = records[-1].number if records else position
            reply["NextShardIterator"] = f"{self.iterators}/{shard}/{end}"
        return reply


@asynccontextmanager
async def serve(table: TableStream) -> AsyncIterator[str]:
    """Its URL, for as long as the block lasts."""
    application = web.Application()
    application.router.add_post("/", table.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
