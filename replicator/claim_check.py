"""For services that read events which replicator has claim-checked: where the body of one is, and whether it is whole.

    pointer = pointer_of(data)
    if pointer is not None:
        s3 = boto3.client("s3", region_name=pointer.region)
        reply = s3.get_object(Bucket=pointer.bucket, Key=pointer.key)
        data = verified(pointer, reply["Body"].read())

The body is the event as its producer wrote it (redacted, where the link redacts), without our tag; the pointer has the
tag.
"""

from hashlib import sha256

from replicator.core.pointers import Pointer, pointer_of

__all__ = ["DamagedBody", "Pointer", "pointer_of", "verified"]


class DamagedBody(ValueError):
    """What stands in S3 is not what was checked in."""


def verified(pointer: Pointer, body: bytes) -> bytes:
    """``body``, when it is what the pointer means. Raises DamagedBody.

    Pointers of aws-lambda-stream name no digest: their bodies are taken as they are.
    """
    if pointer.sha256 and sha256(body).hexdigest() != pointer.sha256:
        raise DamagedBody(f"s3://{pointer.bucket}/{pointer.key} has {len(body)} bytes, of another SHA-256")
    return body
