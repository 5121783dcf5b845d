"""A quarantined event as a document: JSON with everything known about it and its original bytes in base64."""

from base64 import b64decode, b64encode
from hashlib import blake2b

import msgspec
from msgspec import Struct

from replicator.core.model import LinkName, Origin, parse_origin

FORMAT = 1
MARK = ".held"
DOCUMENT = ".json"


class Quarantined(Struct, frozen=True):
    """A poison event with all that is known about it."""

    link: LinkName
    reason: str
    detail: str
    origin: Origin
    partition_key: str
    data: bytes
    attempts: int
    at_ms: int


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

    @property
    def id(self) -> str:
        return document_id(self.origin)


def document_id(origin_key: str) -> str:
    """32 hex digits that name a document of a link."""
    return blake2b(origin_key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def document_name(origin: Origin) -> str:
    """The same for every attempt to put the same event away."""
    return document_id(origin.key) + DOCUMENT


def is_document(name: str, id_begins: str = "") -> bool:
    """Whether a file or object of this name is a document whose id begins so."""
    return name.endswith(DOCUMENT) and name.startswith(id_begins)


class HeldKey(Struct, frozen=True):
    """The mark of a key whose events follow an earlier one into quarantine."""

    v: int
    link: str
    partition_key: str


def key_digest(key: str) -> str:
    """What a mark is named by: keys may be longer than names, and have any characters."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def mark_name(key: str) -> str:
    return key_digest(key) + MARK


def digest_of(name: str) -> str | None:
    """The digest in a mark's name; None for the name of something else."""
    return name.removesuffix(MARK) if name.endswith(MARK) else None


def encode_mark(link: LinkName, key: str) -> bytes:
    return msgspec.json.encode(HeldKey(FORMAT, link, key))


def decode_mark(raw: bytes) -> HeldKey:
    """Raises msgspec.DecodeError for anything that is no mark."""
    return msgspec.json.decode(raw, type=HeldKey)


def encode_document(event: Quarantined) -> bytes:
    return msgspec.json.encode(
        Document(
            FORMAT,
            event.link,
            event.reason,
            event.detail,
            event.origin.key,
            event.partition_key,
            event.attempts,
            event.at_ms,
            b64encode(event.data).decode(),
        )
    )


def decode_document(raw: bytes) -> Document:
    """Raises msgspec.DecodeError for anything that is no document."""
    return msgspec.json.decode(raw, type=Document)


def quarantined_of(document: Document) -> Quarantined:
    """The event that the document was made of. Raises ValueError when its origin or its bytes can't be read."""
    return Quarantined(
        LinkName(document.link),
        document.reason,
        document.detail,
        parse_origin(document.origin),
        document.partition_key,
        document.data,
        document.attempts,
        document.at_ms,
    )
