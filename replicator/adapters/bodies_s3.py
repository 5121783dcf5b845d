"""Bodies of large events under a prefix in an S3 bucket of the peer's region."""

from typing import Any

from replicator.aws.s3_objects import put_object


class S3Bodies:
    """Implements `ports.Bodies`. ``client`` is an aiobotocore S3 client, closed by whoever made it."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    async def put(self, name: str, body: bytes) -> None:
        await put_object(self._client, "claim check", self._bucket, name, body, "application/json")
