"""Opaque tokens (shard iterators, NextToken): signed, so that no client can make one up."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec
from msgspec import Struct

from replicator.dev.kinesis_wire import ShardFilter

_MAC_BYTES = 12


class Place(Struct, frozen=True, array_like=True, tag="p"):
    """A position in one shard of one incarnation of a stream, and when the token was issued."""

    stream: str
    created_ms: int
    shard: str
    position: int
    issued_ms: int


class Listing(Struct, frozen=True, array_like=True, tag="l"):
    """How far a listing came: the last stream and shard shown, and the filter it began with."""

    stream: str
    created_ms: int
    after: str
    filter: ShardFilter | None
    issued_ms: int


Token = Place | Listing


class Tokens:
    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(Token).decode

    def seal(self, token: Token) -> str:
        body = self._encode(token)
        return urlsafe_b64encode(self._mac(body) + body).decode()

    def open(self, text: str) -> Token | None:
        """What was sealed, or None for a token this endpoint never issued."""
        try:
            raw = urlsafe_b64decode(text)
        except ValueError:
            return None
        mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        return self._decode(body) if hmac.compare_digest(mac, self._mac(body)) else None

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._secret, body, "sha256")[:_MAC_BYTES]
