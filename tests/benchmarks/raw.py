"""Kinesis by hand over a plain connection: what fills streams and drives load must not cost what is measured.

It shares no code with the worker. Signatures are real, since the endpoint checks them.
"""

import hmac
import http.client
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Self
from urllib.parse import urlsplit

from msgspec import Struct, json

TIMEOUT_S = 60.0
TYPE = "application/x-amz-json-1.1"


class Stored(Struct, rename="pascal"):
    sequence_number: str
    data: bytes
    partition_key: str


class Page(Struct, rename="pascal"):
    """Of GetRecords; ``next_shard_iterator`` is None at the end of a closed shard."""

    records: list[Stored]
    next_shard_iterator: str | None = None


class _Put(Struct, rename="pascal"):
    failed_record_count: int


class _Iterator(Struct, rename="pascal"):
    shard_iterator: str


class _Shard(Struct, rename="pascal"):
    shard_id: str


class _Shards(Struct, rename="pascal"):
    shards: list[_Shard]


class RawKinesis:
    """One connection, one request at a time. Use in a ``with`` block."""

    def __init__(self, url: str, region: str) -> None:
        self._host = urlsplit(url).netloc
        self._region = region
        self._connection = http.client.HTTPConnection(self._host, timeout=TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def put(self, body: bytes) -> None:
        """A PutRecords body; raises RuntimeError when an entry fails."""
        failed = json.decode(self.call("PutRecords", body), type=_Put).failed_record_count
        if failed:
            raise RuntimeError(f"the endpoint refused {failed} entries")

    def page(self, iterator: str, limit: int = 10_000) -> Page:
        return json.decode(self.raw_page(iterator, limit), type=Page)

    def raw_page(self, iterator: str, limit: int) -> bytes:
        return self.call("GetRecords", json.encode({"ShardIterator": iterator, "Limit": limit}))

    def oldest(self, stream: str, shard: str) -> str:
        """An iterator at the oldest record."""
        place = {"StreamName": stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
        return json.decode(self.call("GetShardIterator", json.encode(place)), type=_Iterator).shard_iterator

    def records(self, stream: str, shard: str) -> Iterator[Stored]:
        """All that an open shard has, from the oldest on: up to a page without any."""
        page = self.page(self.oldest(stream, shard))
        while page.records:
            yield from page.records
            if page.next_shard_iterator is None:
                return
            page = self.page(page.next_shard_iterator)

    def shards(self, stream: str) -> list[str]:
        found = json.decode(self.call("ListShards", json.encode({"StreamName": stream})), type=_Shards)
        return [shard.shard_id for shard in found.shards]

    def call(self, operation: str, body: bytes) -> bytes:
        """The reply's body; raises RuntimeError for any other status than 200."""
        self._connection.request("POST", "/", body, self._headers(operation, body))
        reply = self._connection.getresponse()
        content = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"{operation}: {reply.status} {content[:300]!r}")
        return content

    def _headers(self, operation: str, body: bytes) -> dict[str, str]:
        date = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        headers = {
            "content-type": TYPE,
            "host": self._host,
            "x-amz-date": date,
            "x-amz-target": f"Kinesis_20131202.{operation}",
        }
        scope, names = f"{date[:8]}/{self._region}/kinesis/aws4_request", ";".join(headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        canonical = f"POST\n/\n\n{lines}\n{names}\n{sha256(body).hexdigest()}"
        key = b"AWS4test"
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
        signature = hmac.new(key, text.encode(), sha256).hexdigest()
        signed = f"AWS4-HMAC-SHA256 Credential=test/{scope}, SignedHeaders={names}, Signature={signature}"
        return {**headers, "Authorization": signed}
