"""Quarantine under a prefix in an S3 bucket: one object an event."""

from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from replicator.core.model import LinkName
from replicator.core.quarantine_document import (
    decode_mark,
    digest_of,
    document_name,
    encode_document,
    encode_mark,
    key_digest,
    mark_name,
)
from replicator.errors import StoreUnavailable
from replicator.ports import Quarantined

LISTED_MAX = 1000
"""Names in one answer (Amazon S3 API Reference, ListObjectsV2: "returns up to 1,000 key names by default")."""


class S3Quarantine:
    """Implements `ports.Quarantine`; ``client`` is an aiobotocore S3 client, closed by whoever made it."""

    def __init__(self, client: Any, bucket: str, prefix: str, listed_max: int = LISTED_MAX) -> None:
        self._client = client
        self._listed_max = listed_max
        self._bucket = bucket
        self._prefix = prefix

    async def put(self, event: Quarantined) -> None:
        day = datetime.fromtimestamp(event.at_ms / 1000, UTC).strftime("%Y/%m/%d")
        key = f"{self._prefix}{event.link}/{day}/{document_name(event.origin)}"
        document = encode_document(
            link=event.link,
            reason=event.reason,
            detail=event.detail,
            origin=event.origin,
            partition_key=event.partition_key,
            data=event.data,
            attempts=event.attempts,
            at_ms=event.at_ms,
        )
        await self._put(key, document)

    async def hold(self, link: LinkName, key: str) -> None:
        await self._put(self._marks(link) + mark_name(key), encode_mark(link, key))

    async def held(self, link: LinkName) -> frozenset[str]:
        return frozenset([digest async for digest, _ in self._listed(link)])

    async def held_keys(self, link: LinkName) -> Sequence[str]:
        found = []
        async for _, name in self._listed(link):
            reply = await self._told(name, self._client.get_object(Bucket=self._bucket, Key=name))
            found.append(decode_mark(await reply["Body"].read()).partition_key)
        return sorted(found)

    async def release(self, link: LinkName, key: str) -> bool:
        is_held = key_digest(key) in await self.held(link)
        name = self._marks(link) + mark_name(key)
        await self._told(name, self._client.delete_object(Bucket=self._bucket, Key=name))
        return is_held

    def _marks(self, link: LinkName) -> str:
        return f"{self._prefix}{link}/held/"

    async def _listed(self, link: LinkName) -> AsyncIterator[tuple[str, str]]:
        """Digest and object name of every mark."""
        request: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._marks(link), "MaxKeys": self._listed_max}
        while True:
            page = await self._told(request["Prefix"], self._client.list_objects_v2(**request))
            for entry in page.get("Contents", []):
                digest = digest_of(entry["Key"].rpartition("/")[2])
                if digest is not None:
                    yield digest, entry["Key"]
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
