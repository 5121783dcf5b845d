"""A service with a database of its own: events as new items of a table, which change data capture brings to the hub."""

from collections.abc import Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from replicator.dev.checker import Written
from replicator.dev.clients import dynamodb_client

TABLE = "orders"
EVENT = "event"
KEY, NUMBER = "pk", "sk"
DEFINITION: dict[str, Any] = {
    "TableName": TABLE,
    "KeySchema": [{"AttributeName": KEY, "KeyType": "HASH"}, {"AttributeName": NUMBER, "KeyType": "RANGE"}],
    "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in (KEY, NUMBER)],
    "BillingMode": "PAY_PER_REQUEST",
    "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
}


class TableClient:
    """A `workload.Client`. Writing an item again changes nothing, so no write is ever unknown."""

    def __init__(self, url: str, region: str) -> None:
        self._client = dynamodb_client(url, region, retries={"total_max_attempts": 1})

    def put(self, events: Sequence[Written]) -> list[bool]:
        """Per event whether it is known to be stored. Blocks."""
        return [self._put(event) for event in events]

    def _put(self, event: Written) -> bool:
        item = {KEY: {"S": event.key}, NUMBER: {"S": event.id}, EVENT: {"S": event.data.decode()}}
        try:
            self._client.put_item(TableName=TABLE, Item=item)
        except (BotoCoreError, ClientError):
            return False
        return True

    def close(self) -> None:
        self._client.close()
