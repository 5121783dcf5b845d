"""Storing one object in S3, and what its refusals mean."""

import asyncio
from base64 import b64encode
from hashlib import sha256
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from replicator.errors import Misconfigured, TransientError

PASSING = {
    "SlowDown": "throttled",
    "Throttling": "throttled",
    "ThrottlingException": "throttled",
    "RequestTimeout": "timeout",
    "OperationAborted": "busy",
    "BadDigest": "bad_digest",
    "XAmzContentChecksumMismatch": "bad_digest",
}
"""Our codes for refusals that are over by themselves (Amazon S3 API Reference, "List of error codes")."""


async def put_object(client: Any, what: str, bucket: str, name: str, body: bytes, content_type: str) -> None:
    """Store ``body`` with the checksum by which S3 refuses one that was damaged on its way; safe to repeat.

    ``client`` is an aiobotocore S3 client; errors call the place a ``what``. Raises TransientError, Misconfigured.
    """
    place = f"{what} s3://{bucket}/{name}"
    # Hashing megabytes in the event loop would hold up every other link.
    checksum = b64encode((await asyncio.to_thread(sha256, body)).digest()).decode()
    try:
        await client.put_object(Bucket=bucket, Key=name, Body=body, ContentType=content_type, ChecksumSHA256=checksum)
    except ClientError as exc:
        raise _refusal(f"{place}: {exc}", exc) from exc
    except (BotoCoreError, HTTPClientError, OSError, TimeoutError) as exc:
        raise TransientError(f"{place}: {exc}", code="no_answer") from exc


def _refusal(text: str, exc: ClientError) -> TransientError:
    code = str(exc.response.get("Error", {}).get("Code", ""))
    status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in PASSING:
        return TransientError(text, code=PASSING[code])
    if not 400 <= status < 500:
        return TransientError(text)
    advice = "allow the role of the task s3:PutObject there, or correct the bucket in the configuration"
    return Misconfigured(f"{text}; {advice}", code=code)
