"""Change records as Kinesis Data Streams for DynamoDB, DMS and Debezium write them: new rows with a number."""

import json

from trial import EAST

KEYS = 20
AT_US = 1_789_000_000_000_000


def dynamodb(number: int) -> str:
    data = {
        "ApproximateCreationDateTime": AT_US + number,
        "ApproximateCreationDateTimePrecision": "MICROSECOND",
        "Keys": {"pk": {"S": str(number % KEYS)}},
        "NewImage": {"pk": {"S": str(number % KEYS)}, "n": {"N": str(number)}},
        "SizeBytes": 20,
    }
    record = {"awsRegion": EAST, "eventID": str(number), "eventName": "INSERT", "tableName": "stock", "dynamodb": data}
    return json.dumps(record | {"recordFormat": "application/json", "eventSource": "aws:dynamodb"})


def dms(number: int) -> str:
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
    return json.dumps({"data": {"n": number}, "metadata": metadata})


def debezium(number: int, at_ms: int = 1) -> str:
    source = {"connector": "postgresql", "name": "crm", "db": "crm", "schema": "public", "table": "people"}
    source |= {"ts_ms": AT_US // 1000, "lsn": number, "txId": number // 10, "snapshot": "false"}
    return json.dumps({"before": None, "after": {"n": number}, "source": source, "op": "c", "ts_ms": at_ms})


MAKERS = {"dynamodb": dynamodb, "dms": dms, "debezium": debezium}
"""By format: the record of the row with a number."""
