"""The event lake under a prefix in an S3 bucket of the worker's own region."""

import asyncio
import time
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from replicator.aws.never_read_back import NeverReadBack
from replicator.aws.s3_objects import put_object
from replicator.core.lake import NDJSON, Archived, LakeFormat, LakeObject, events_in, objects_of
from replicator.core.model import SourceName
from replicator.core.peer_clock import PeerTime
from replicator.errors import Refused, StoreUnavailable
from replicator.ports import Entry, SinkLimits

RECORDS_MAX = 5_000
LISTED_MAX = 1000
"""Names in one answer (Amazon S3 API Reference, ListObjectsV2: "returns up to 1,000 key names by default")."""
LINE_BYTES_MAX = 64 * 1024 * 1024
"""A record of 10 MiB whose every byte JSON writes as six. S3 itself takes 5 GiB in one PutObject (Amazon S3 User
Guide, "Uploading objects")."""


class S3Lake(NeverReadBack):
    """Implements `ports.Sink` for the hub ``source``; entries are lines of `core.lake`.

    All of a request is stored or the request failed: to put it again is harmless, so nothing is ever in doubt.
    ``client`` is an aiobotocore S3 client, closed by whoever made it.
    """

    why = "a lake is put again, not read back"

    def __init__(
        self,
        client: Any,
        bucket: str,
        prefix: str,
        source: SourceName,
        object_bytes_max: int,
        lake_format: LakeFormat = NDJSON,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._source = source
        self._format = lake_format
        self._packing = asyncio.Semaphore(1)
        self._limits = SinkLimits(RECORDS_MAX, object_bytes_max, LINE_BYTES_MAX)

    @property
    def limits(self) -> SinkLimits:
        return self._limits

    async def put(self, entries: Sequence[Entry], *, signed_ms: int | None = None) -> Sequence[str | Refused | None]:  # noqa: ARG002 - nothing is fenced by its date here
        for held in objects_of(self._source, [entry.data for entry in entries], self._format):
            await self._put(held)
        return [None] * len(entries)

    async def _put(self, held: LakeObject) -> None:
        # Packing megabytes in the event loop would hold up every other link. Objects of several shards wait for each
        # other, as Parquet takes six times the bytes of an object meanwhile.
        async with self._packing:
            body = await asyncio.to_thread(held.body)
        name, content_type = f"{self._prefix}{held.name}", held.format.content_type
        await put_object(self._client, "lake", self._bucket, name, body, content_type)

    async def peer_time(self) -> PeerTime:
        """Our own clock: nothing depends on the peer's where nothing is in doubt."""
        now_ms = time.time_ns() // 1_000_000
        return PeerTime(now_ms, now_ms, asyncio.get_running_loop().time())

    async def refuses(self, _: int) -> bool:
        return False


class S3LakeReader:
    """Implements `ports.LakeReader`. ``client`` is closed by whoever made it; ``formats`` are those beside NDJSON."""

    def __init__(
        self, client: Any, bucket: str, prefix: str, formats: Iterable[LakeFormat], listed_max: int = LISTED_MAX
    ) -> None:
        self._client = client
        self._formats = tuple(formats)
        self._bucket = bucket
        self._prefix = prefix
        self._listed_max = listed_max

    async def names(self, prefix: str) -> Sequence[str]:
        names: list[str] = []
        request = {"Bucket": self._bucket, "Prefix": f"{self._prefix}{prefix}", "MaxKeys": self._listed_max}
        while True:
            page = await self._told(prefix, self._client.list_objects_v2(**request))
            names += [str(each["Key"]).removeprefix(self._prefix) for each in page.get("Contents", [])]
            if not page.get("IsTruncated"):
                return names
            request["ContinuationToken"] = page["NextContinuationToken"]

    async def events(self, name: str) -> Sequence[Archived]:
        reply = await self._told(name, self._client.get_object(Bucket=self._bucket, Key=f"{self._prefix}{name}"))
        body: bytes = await self._told(name, reply["Body"].read())
        # Megabytes may be taken apart here, which would hold up the event loop.
        return await asyncio.to_thread(events_in, name, body, self._formats)

    async def _told(self, name: str, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except (ClientError, BotoCoreError, HTTPClientError, OSError, TimeoutError) as exc:
            raise StoreUnavailable(f"lake s3://{self._bucket}/{self._prefix}{name}: {exc}") from exc
