"""The calls of DynamoDB on one table that is written, and what they answer."""

from typing import Any

import msgspec
from msgspec import Struct

from replicator.aws.dynamodb_streams_api import TABLE_PREFIX, KeyElement
from replicator.aws.transport import JsonApi, Reply, ServiceError, decoded
from replicator.core.changes import Image

SERVICE = "dynamodb"
PREFIX = TABLE_PREFIX
CONDITION_FAILED = "ConditionalCheckFailedException"


class _Replica(Struct, rename="pascal"):
    region_name: str


class WrittenTable(Struct, rename="pascal"):
    """Of DescribeTable. ``replicas`` are the other regions of a global table."""

    key_schema: list[KeyElement]
    replicas: list[_Replica] = []


class _TableReply(Struct, rename="pascal"):
    table: WrittenTable


class _Stored(Struct):
    Item: Image | None = None


_table = msgspec.json.Decoder(_TableReply)
_stored = msgspec.json.Decoder(_Stored)


class ConditionFailed(Struct, frozen=True):
    """Nothing was written. ``stored``: the item that stands there, None where there is none."""

    stored: Image | None


class DynamoDbApi:
    """Each call raises TransientError, Misconfigured or ServiceError; the one write InDoubt as well."""

    def __init__(self, api: JsonApi, table: str, timeout_s: float) -> None:
        self.table = table
        self._api = api
        self._timeout_s = timeout_s

    async def ask(self, signed_ms: int | None) -> Reply:
        """DescribeTable, dated ``signed_ms`` (now by default): code ``late`` when that had expired."""
        return await self._sent("DescribeTable", {"TableName": self.table}, is_write=False, signed_ms=signed_ms)

    async def describe(self) -> WrittenTable:
        return decoded(_table, await self.ask(None), "DynamoDB").table

    async def put(
        self,
        item: Image,
        condition: str,
        names: dict[str, str],
        values: dict[str, Any],
        signed_ms: int | None,
    ) -> Reply | ConditionFailed:
        """Put the item where the condition holds. Dated ``signed_ms`` (now by default)."""
        request = {
            "TableName": self.table,
            "Item": item,
            "ConditionExpression": condition,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        try:
            return await self._sent("PutItem", request, is_write=True, signed_ms=signed_ms)
        except ServiceError as exc:
            if exc.code != CONDITION_FAILED:
                raise
            return ConditionFailed(_stored.decode(exc.body).Item)

    async def _sent(self, operation: str, request: object, *, is_write: bool, signed_ms: int | None) -> Reply:
        body = msgspec.json.encode(request)
        signed_s = None if signed_ms is None else signed_ms / 1000
        return await self._api.call(operation, body, is_write=is_write, timeout_s=self._timeout_s, signed_s=signed_s)
