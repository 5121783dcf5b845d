"""Quarantine under a prefix in an S3 bucket: one object an event."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from replicator.core.model import LinkName
from replicator.core.quarantine_document import (
    Document,
    Quarantined,
    decode_document,
    decode_mark,
    digest_of,
    document_name,
    encode_document,
    encode_mark,
    is_document,
    key_digest,
    mark_name,
)
from replicator.errors import StoreUnavailable
from replicator.ports import Kept

LISTED_MAX = 1000
"""Names in one answer (Amazon S3 API Reference, ListObjectsV2: "returns up to 1,000 key names by default")."""

READS_AT_ONCE = 16


class S3Quarantine:
    """Implements `ports.Quarantine` and `ports.QuarantineReader`.

    ``client`` is an aiobotocore S3 client, closed by whoever made it.
    """

    def __init__(self, client: Any, bucket: str, prefix: str, listed_max: int = LISTED_MAX) -> None:
        self._client = client
        self._listed_max = listed_max
        self._bucket = bucket
        self._prefix = prefix

    async def put(self, event: Quarantined) -> None:
        day = datetime.fromtimestamp(event.at_ms / 1000, UTC).strftime("%Y/%m/%d")
        key = f"{self._prefix}{event.link}/{day}/{document_name(event.origin)}"
        await self._put(key, encode_document(event))

    async def hold(self, link: LinkName, key: str) -> None:
        await self._put(self._marks(link) + mark_name(key), encode_mark(link, key))

    async def held(self, link: LinkName) -> frozenset[str]:
        return frozenset([digest async for digest, _ in self._listed(link)])

    async def held_keys(self, link: LinkName) -> Sequence[str]:
        found = []
        async for _, name in self._listed(link):
            found.append(decode_mark(await self._body(name)).partition_key)
        return sorted(found)

    async def release(self, link: LinkName, key: str) -> bool:
        is_held = key_digest(key) in await self.held(link)
        name = self._marks(link) + mark_name(key)
        await self._told(name, self._client.delete_object(Bucket=self._bucket, Key=name))
        return is_held

    async def kept(self, link: LinkName, newest: int) -> Kept:
        found = [entry async for entry in self._entries(f"{self._prefix}{link}/") if is_document(_name(entry))]
        found.sort(key=lambda entry: entry["LastModified"], reverse=True)
        return Kept(len(found), await self._read(found[:newest]))

    async def find(self, link: LinkName, document_id: str) -> Sequence[Document]:
        entries = self._entries(f"{self._prefix}{link}/")
        return await self._read([entry async for entry in entries if is_document(_name(entry), document_id)])

    async def names(self, link: LinkName) -> Sequence[str]:
        entries = self._entries(f"{self._prefix}{link}/")
        return [str(entry["Key"]) async for entry in entries if is_document(_name(entry))]

    async def load(self, name: str) -> Document:
        return self._decoded(name, await self._body(name))

    async def remove(self, name: str) -> None:
        await self._told(name, self._client.delete_object(Bucket=self._bucket, Key=name))

    async def _read(self, entries: Sequence[dict[str, Any]]) -> list[Document]:
        slots = asyncio.Semaphore(READS_AT_ONCE)

        async def one(name: str) -> Document:
            async with slots:
                return self._decoded(name, await self._body(name))

        return await asyncio.gather(*(one(entry["Key"]) for entry in entries))

    def _decoded(self, name: str, raw: bytes) -> Document:
        try:
            return decode_document(raw)
        except msgspec.DecodeError as exc:
            text = f"quarantine s3://{self._bucket}/{name} is no document of ours: {exc}; move it elsewhere"
            raise StoreUnavailable(text, code="bad_document") from exc

    async def _body(self, name: str) -> bytes:
        reply = await self._told(name, self._client.get_object(Bucket=self._bucket, Key=name))
        body: bytes = await reply["Body"].read()
        return body

    def _marks(self, link: LinkName) -> str:
        return f"{self._prefix}{link}/held/"

    async def _listed(self, link: LinkName) -> AsyncIterator[tuple[str, str]]:
        """Digest and object name of every mark."""
        async for entry in self._entries(self._marks(link)):
            digest = digest_of(_name(entry))
            if digest is not None:
                yield digest, entry["Key"]

    async def _entries(self, prefix: str) -> AsyncIterator[dict[str, Any]]:
        """All objects under a prefix, as listed."""
        request: dict[str, Any] = {"Bucket": self._bucket, "Prefix": prefix, "MaxKeys": self._listed_max}
        while True:
            page = await self._told(prefix, self._client.list_objects_v2(**request))
            for entry in page.get("Contents", []):
                yield entry
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    async def _put(self, name: str, body: bytes) -> None:
        put = self._client.put_object(Bucket=self._bucket, Key=name, Body=body, ContentType="application/json")
        await self._told(name, put)

    async def _told(self, name: str, call: Awaitable[dict[str, Any]]) -> dict[str, Any]:
        try:
            return await call
        except (ClientError, BotoCoreError, HTTPClientError, OSError, TimeoutError) as exc:
            raise StoreUnavailable(f"quarantine s3://{self._bucket}/{name}: {exc}") from exc


def _name(entry: dict[str, Any]) -> str:
    """Behind the last slash."""
    return str(entry["Key"]).rpartition("/")[2]
