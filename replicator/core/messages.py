"""Messages of a queue as events: JSON as it was sent, or the envelope in which EventBridge hands events to a queue.

How it works: the body is the event, and goes on byte for byte. Its id is the producer's own where there is one, because
ids of messages and of EventBridge are new with every sending; without one an event goes by its message's id, which
redelivery keeps.

Why nothing loops: what bears a tag was brought here by replication. Where the tag stands first, whoever fills the hub
sees it; in the detail of a bus's event, and where CloudEvents have it, it is looked for here.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from replicator.core.formats import CLOUDEVENTS_ATTRIBUTE, Decoded, JsonFormat
from replicator.core.routing import REPLICA
from replicator.core.skim import MISSING, RESERVED_KEY, skim_nothing
from replicator.errors import PoisonEvent

Envelope = Literal["none", "eventbridge"]


class _Tagged(Struct, rename={"tag": RESERVED_KEY, "text_tag": CLOUDEVENTS_ATTRIBUTE}):
    tag: Raw = MISSING
    text_tag: Raw = MISSING

    @property
    def is_replica(self) -> bool:
        return self.tag is not MISSING or self.text_tag is not MISSING


class _EventBridgeEvent(Struct, rename={"detail_type": "detail-type"}):
    id: str
    detail_type: str
    source: str
    detail: _Tagged


_tagged = msgspec.json.Decoder(_Tagged)
_envelopes = msgspec.json.Decoder(_EventBridgeEvent)


class MessageFormat:
    """Implements `core.formats.Format` for a queue's messages, and for what became of them in a hub.

    ``id_path`` leads to the producer's id, member by member.
    """

    def __init__(self, envelope: Envelope, id_path: Sequence[str]) -> None:
        self._envelope = envelope
        self._id_path = tuple(id_path)
        self._events = JsonFormat("id")
        self.skim = skim_nothing

    def decode(self, data: bytes) -> Decoded:
        decoded = self._events.decode(data)
        if decoded.tag is not None:
            return decoded
        if self._is_replica(data):
            decoded.drop = REPLICA
        decoded.event_id = text_at(data, self._id_path)
        return decoded

    def _is_replica(self, data: bytes) -> bool:
        """Raises PoisonEvent for what is no event of EventBridge."""
        if self._envelope == "none":
            return _tagged.decode(data).is_replica
        try:
            return _envelopes.decode(data).detail.is_replica
        except msgspec.ValidationError as exc:
            raise PoisonEvent("bad_envelope", f"no event of EventBridge: {exc}") from exc


def text_at(data: bytes, path: Sequence[str]) -> str | None:
    """The text or integer at the end of the path; None when there is none, or the bytes are no JSON."""
    try:
        value: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    for member in path:
        value = value.get(member) if isinstance(value, dict) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None
