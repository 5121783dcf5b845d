"""Quarantine under a prefix in an S3 bucket: one object an event."""

from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from replicator.core.quarantine_document import document_name, encode_document
from replicator.errors import StoreUnavailable
from replicator.ports import Quarantined


class S3Quarantine:
    """Implements `ports.Quarantine`; ``client`` is an aiobotocore S3 client, closed by whoever made it."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
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
        try:
            await self._client.put_object(Bucket=self._bucket, Key=key, Body=document, ContentType="application/json")
        except (ClientError, BotoCoreError, HTTPClientError, OSError, TimeoutError) as exc:
            raise StoreUnavailable(f"quarantine s3://{self._bucket}/{key}: {exc}") from exc
