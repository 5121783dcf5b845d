"""Claim checks: an event that is too large for a sink leaves as a small pointer, and its body stands in S3.

How it works: the body is the event without our tag, under a name made of its origin and its digest. The pointer is the
same event with its tag and its small members; the others are left out, and `core.pointers` say where the body is.

Why it is safe: what stands under a name never changes, so a pointer that is out stays true whoever stores the body
again. It is stored before the pointer leaves; after a crash in between it is stored again, or stays behind unused.
"""

from hashlib import sha256

import msgspec
from msgspec import Raw, Struct

from replicator.core.egress import EgressRules
from replicator.core.formats import CLOUDEVENTS_ATTRIBUTE
from replicator.core.model import Origin, Region
from replicator.core.pointers import DETAIL, POINTER, Pointer, attributes
from replicator.core.skim import RESERVED_KEY

ENVELOPE = frozenset({"source", "detail-type", DETAIL})
"""What an event that came from a bus has."""
KEPT_BYTES_MAX = 1024
"""Of a member's value that stays in the pointer."""
DIGEST_HEX = 32
TAGS = (RESERVED_KEY, CLOUDEVENTS_ATTRIBUTE)


class Checked(Struct, frozen=True):
    """``name`` and ``body`` of the object to store, and the event that leaves in its place."""

    name: str
    body: bytes
    pointer: bytes


class Cloakroom(Struct, frozen=True):
    """Where bodies of a link go. ``rules`` are those under which all of them leave."""

    region: Region
    bucket: str
    prefix: str
    rules: EgressRules = EgressRules()

    def check_in(self, data: bytes, origin: Origin | None) -> Checked:
        """Of an event with its tag, in which its origin stands. Raises ValueError for anything else."""
        event: dict[str, Raw] = msgspec.json.decode(data, type=dict[str, Raw])
        tag_name = next(iter(event), "")
        if tag_name not in TAGS or origin is None:
            raise ValueError("it does not begin with a tag")
        body = _without(data, b'"%b":%b' % (tag_name.encode(), event[tag_name]))
        digest = sha256(body).hexdigest()
        name = f"{self.prefix}{origin.key}-{digest[:DIGEST_HEX]}"
        redacted, absent = tuple(sorted(self.rules.redact)), tuple(sorted(self.rules.kept_in(origin.region)))
        place = Pointer(self.bucket, name, self.region, digest, len(body), redacted, absent)
        kept = {member: raw for member, raw in event.items() if member == tag_name or len(raw) <= KEPT_BYTES_MAX}
        pointing = attributes(place) if tag_name == CLOUDEVENTS_ATTRIBUTE else _member(event, place)
        return Checked(name, body, msgspec.json.encode(kept | pointing))


def _without(data: bytes, member: bytes) -> bytes:
    """The event without its first member, spelt so. Raises ValueError."""
    at = data.index(member)
    return data[:at] + data[at + len(member) :].removeprefix(b",")


def _member(event: dict[str, Raw], place: Pointer) -> dict[str, Raw]:
    if event.keys() >= ENVELOPE and bytes(event[DETAIL])[:1] == b"{":
        return {DETAIL: Raw(msgspec.json.encode({POINTER: place}))}
    return {POINTER: Raw(msgspec.json.encode(place))}
