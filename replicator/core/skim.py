"""What nearly all events show at a glance, so that the few others alone are decoded in full (`core.formats`).

How it works: an event of ours is either plain (an id, no tag yet) or a replica whose tag stands where we put it. One
typed parse of the bytes tells which; it still reads every byte, so nothing that is no JSON passes.

Why it is safe: what is not exactly one of the two is answered with None and decoded the long way, which alone may call
an event poison. The tests hold both ways against each other.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, cast

import msgspec
from msgspec import Raw, Struct

from replicator.core.tag import VERSION, WireTag

RESERVED_KEY = "_replicator"
"""The member that holds our tag, in every JSON format but CloudEvents."""
PLAIN_HEAD = b'{"' + RESERVED_KEY.encode() + b'":'
MISSING = Raw()
"""What an envelope holds for a member that the event does not have; looked for by identity."""
NOT_PLAIN = frozenset(b" \t\r\n}")
"""What stands behind the brace of an event that has no member there."""
BRACE = ord("{")
_QUOTED_KEY = PLAIN_HEAD[1:-1]

Skimmed: TypeAlias = str | WireTag | None
"""The id of a plain event; the tag of a replica as it stands; None: decode it."""


class _Plain(Struct, gc=False):
    event_id: object
    tag: Raw
    trace: Raw


class _Replica(Struct, gc=False):
    tag: WireTag


class Skim:
    """For JSON formats with the tag under `RESERVED_KEY`. ``required``: further members, as `msgspec.defstruct` takes
    them, without which an event is none of the format.

    Plain: the id stands under ``id_field``, there is no trace context, and the event leaves as `PLAIN_HEAD`, the tag, a
    comma and ``data[1:]``.
    """

    def __init__(self, id_field: str, required: Sequence[Any] = ()) -> None:
        plain = msgspec.defstruct(
            "Plain",
            [
                ("event_id", object, msgspec.field(name=id_field, default=None)),
                ("tag", Raw, msgspec.field(name=RESERVED_KEY, default=MISSING)),
                ("trace", Raw, msgspec.field(name="traceparent", default=MISSING)),
                *required,
            ],
            gc=False,
            kw_only=True,
        )
        replica = msgspec.defstruct(
            "Replica",
            [("tag", WireTag, msgspec.field(name=RESERVED_KEY)), *required],
            gc=False,
            kw_only=True,
        )
        self._plain = msgspec.json.Decoder(cast("type[_Plain]", plain)).decode
        self._replica = msgspec.json.Decoder(cast("type[_Replica]", replica)).decode

    def __call__(self, datas: Iterable[bytes]) -> list[Skimmed]:
        found: list[Skimmed] = []
        plain, replica = self._plain, self._replica
        for data in datas:
            seen: Skimmed = None
            try:
                if data.startswith(PLAIN_HEAD):
                    tag = replica(data).tag
                    # A parser takes the last of several members of one name.
                    if tag.v == VERSION and data.count(_QUOTED_KEY) == 1:
                        seen = tag
                else:
                    event = plain(data)
                    event_id = event.event_id
                    if type(event_id) is str and event.tag is MISSING and event.trace is MISSING:
                        seen = event_id if data[0] == BRACE and data[1] not in NOT_PLAIN else None
            except (ValueError, RecursionError):
                pass  # the format's `decode` finds out what is wrong with it
            found.append(seen or None)
        return found


def skim_nothing(datas: Iterable[bytes]) -> list[Skimmed]:
    """For formats whose events are all decoded in full."""
    return [None for _ in datas]
