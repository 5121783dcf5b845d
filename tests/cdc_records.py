"""Change records as Kinesis Data Streams for DynamoDB, DMS and Debezium write them: new rows with a number.

``columns``: what else is in the row, all of it text.
"""

import json
from collections.abc import Callable, Mapping

KEYS = 20
REGION = "us-east-1"
AT_US = 1_789_000_000_000_000
NOTHING: Mapping[str, str] = {}


def dynamodb(number: int, columns: Mapping[str, str] = NOTHING) -> str:
    key = {"pk": {"S": str(number % KEYS)}}
    data = {
        "ApproximateCreationDateTime": AT_US + number,
        "ApproximateCreationDateTimePrecision": "MICROSECOND",
        "Keys": key,
        "NewImage": {**key, "n": {"N": str(number)}, **image(columns)},
        "SizeBytes": 20,
    }
    record = {"awsRegion": REGION, "eventID": str(number), "eventName": "INSERT", "tableName": "stock"}
    return json.dumps(record | {"dynamodb": data, "recordFormat": "application/json", "eventSource": "aws:dynamodb"})


def dms(number: int, columns: Mapping[str, str] = NOTHING) -> str:
    metadata = {
        "timestamp": "2026-11-25T10:00:00.000001Z",
        "record-type": "data",
        "operation": "insert",
        "partition-key-type": "primary-key",
        "schema-name": "sales",
        "table-name": "bills",
        "commit-timestamp": "2026-11-25T10:00:00.000000Z",
        "transaction-id": number // 10,
        "transaction-record-id": number % 10,
        "stream-position": str(number),
    }
    return json.dumps({"data": {"n": number, **columns}, "metadata": metadata})


def debezium(number: int, columns: Mapping[str, str] = NOTHING) -> str:
    source = {"connector": "postgresql", "name": "crm", "db": "crm", "schema": "public", "table": "people"}
    source |= {"ts_ms": AT_US // 1000, "lsn": number, "txId": number // 10, "snapshot": "false"}
    return json.dumps({"before": None, "after": {"n": number, **columns}, "source": source, "op": "c", "ts_ms": 1})


def image(columns: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """In DynamoDB's JSON."""
    return {name: {"S": text} for name, text in columns.items()}


MAKERS: dict[str, Callable[..., str]] = {"dynamodb": dynamodb, "dms": dms, "debezium": debezium}
"""By format: the record of the row with a number."""
