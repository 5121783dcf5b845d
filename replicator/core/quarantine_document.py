"""A quarantined event as a document: JSON with everything known about it and its original bytes in base64."""

from base64 import b64decode, b64encode
from hashlib import blake2b

import msgspec
from msgspec import Struct

from replicator.core.model import LinkName, Origin

FORMAT = 1


class Document(Struct, frozen=True):
    """``origin`` is the key of the event's coordinates; ``data_base64`` its bytes exactly as they were read."""

    v: int
    link: str
    reason: str
    detail: str
    origin: str
    partition_key: str
    attempts: int
    at_ms: int
    data_base64: str

    @property
    def data(self) -> bytes:
        return b64decode(self.data_base64)


def document_name(origin: Origin) -> str:
    """The same for every attempt to put the same event away."""
    return blake2b(origin.key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest() + ".json"


def encode_document(
    *,
    link: LinkName,
    reason: str,
    detail: str,
    origin: Origin,
    partition_key: str,
    data: bytes,
    attempts: int,
    at_ms: int,
) -> bytes:
    text = b64encode(data).decode()
    return msgspec.json.encode(Document(FORMAT, link, reason, detail, origin.key, partition_key, attempts, at_ms, text))


def decode_document(raw: bytes) -> Document:
    """Raises msgspec.DecodeError for anything that is no document."""
    return msgspec.json.decode(raw, type=Document)
