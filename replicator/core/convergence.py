"""Which of two writes of one item stays: the one of the greater version, in every region.

How it works: every writer gives an item a version, ``<ms>:<region>:<counter>`` as text of fixed widths, and writes only
over a smaller one. Replication does the same with what other regions wrote. Or the writers order their items by
attributes of their own (`Rule.order`), of which the first that differs decides; the writer's region is always the last.

Why all regions end equal, in whatever order changes arrive and however often:

1. Versions of one item differ. Between regions the region does; within one DynamoDB makes writes one after the other,
   each above what it found.
2. A region's table holds the greatest version that it was shown, by its own writers or by replication: what is not
   greater changes nothing. The greatest of several does not depend on order or repetition.
3. Every write of a region is shown to all others: change capture tells it, and links lose nothing.

A deletion is a write as well: it leaves a tombstone, an item of which nothing is left but key and marks. It goes by
itself (`Rule.expires`) when nothing smaller should be on its way any more. From then on, less a margin for clocks, a
change as old as that is taken only where an item stands, which then decides. Where none stands, nobody knows whether a
tombstone stood there, so the change is a conflict. A tombstone is always taken: where nothing stands it says nothing
new.

An item that an application removed itself has left nothing in its region, not even a version. The others put a
tombstone in its place whose version, a *grave*, is above the removed one and below all others above that; and because
their own change capture tells that as a write of theirs, the region that removed the item gets it too.

What loses is a conflict when it loses against another region's write. Whether that writer knew it nobody can see; so
in three regions, and when a change is sent again, it may be told of one that had been seen. What loses against a later
write of its own region was replaced there, and is none.
"""

import re
from decimal import Decimal
from typing import Any

from msgspec import Struct

from replicator.core.changes import Image, encode_sorted, plain_image

CONFLICT = "conflict"
SUPERSEDED = "superseded"
NOT_CONVERGENT = "not_convergent"
GRAVE = "~"
"""Greater than every character of a version."""
MS_DIGITS, COUNTER_DIGITS = 15, 6
VERSION = re.compile(r"(?P<ms>[0-9]{15}):(?P<region>[a-z0-9-]+):(?P<counter>[0-9]{6})(?P<graves>~*)")
CLOCK_MARGIN_MS = 3_600_000
"""For our clock against that of DynamoDB's time to live, and for a change that is on its way while it is judged."""
NEVER_DOUBLED_MS = 2**62
"""For `ports.SinkLimits.repeats_dropped_ms`: a write that is made again changes nothing, however late."""


class Rule(Struct, frozen=True):
    """The attributes by which the items of a table are ordered: by their version, or by those of ``order``."""

    version: str = "version"
    order: tuple[str, ...] = ()
    region: str = "awsregion"
    deleted: str = "deleted"
    expires: str = "expires"

    @property
    def columns(self) -> tuple[str, ...]:
        """What decides, the first before the others."""
        first = self.order or (self.version,)
        return first if self.region in first else (*first, self.region)


class Version(Struct, frozen=True):
    """Of an item: ``values`` as DynamoDB has them, ``ranks`` as they compare there, ``ms`` when it was written (None
    where the table has an order of its own)."""

    values: tuple[dict[str, Any], ...]
    ranks: tuple[tuple[str, Decimal | bytes], ...]
    region: str
    ms: int | None

    def compares(self, other: "Version") -> bool:
        """DynamoDB compares values of one type only, and those of two are never greater or equal."""
        return [kind for kind, _ in self.ranks] == [kind for kind, _ in other.ranks]

    def is_above(self, other: "Version") -> bool:
        """For versions that compare."""
        mine, others = ([rank for _, rank in version.ranks] for version in (self, other))
        return mine > others

    def __str__(self) -> str:
        return ", ".join(str(text) for value in self.values for text in value.values())


def make_version(ms: int, region: str, counter: int) -> str:
    """Raises ValueError for what has no place in it."""
    made = f"{ms:0{MS_DIGITS}d}:{region}:{counter:0{COUNTER_DIGITS}d}"
    if not VERSION.fullmatch(made):
        raise ValueError(f"no version can be made of {ms} ms, region {region!r} and counter {counter}")
    return made


def grave_of(version: str) -> str:
    """Above the version, and below every other one above it."""
    return version + GRAVE


def written_ms(version: str) -> int | None:
    """When it was made, by its writer; None for what is none."""
    match = VERSION.fullmatch(version)
    return int(match["ms"]) if match else None


def version_of(rule: Rule, image: Image) -> Version | None:
    """None where an attribute is missing or is neither text nor a number, or a version is none of ours."""
    values = tuple(image.get(name, {}) for name in rule.columns)
    ranks = tuple(map(_rank, values))
    region = image.get(rule.region, {}).get("S")
    known = [rank for rank in ranks if rank is not None]
    if len(known) < len(ranks) or not isinstance(region, str):
        return None
    if rule.order:
        return Version(values, tuple(known), region, None)
    match = VERSION.fullmatch(values[0].get("S", ""))
    if match is None or not (match["graves"] or match["region"] == region):
        return None
    return Version(values, tuple(known), region, int(match["ms"]))


def _rank(value: dict[str, Any]) -> tuple[str, Decimal | bytes] | None:
    match value:
        case {"N": str(number)}:
            return "N", Decimal(number)
        case {"S": str(text)}:
            return "S", text.encode()
    return None


def is_grave_of(rule: Rule, stored: Version, other: Version) -> bool:
    """Whether the one marks the removal of the very write that the other is, or was made for."""
    if rule.order:
        return False
    mine, others = stored.values[0]["S"], other.values[0]["S"]
    return bool(mine.startswith(others) and mine.endswith(GRAVE))


def is_deleted(rule: Rule, image: Image) -> bool:
    """Whether it is a tombstone, or deleted softly, which is the same."""
    return image.get(rule.deleted) == {"BOOL": True}


def condition(columns: int) -> str:
    """Of DynamoDB, that an item is absent, without a version, or of a smaller one; see `placeholders`."""
    return f"attribute_not_exists(#v0) OR {_above(0, columns)}"


def _above(place: int, columns: int) -> str:
    above = f"#v{place} < :v{place}"
    if place + 1 == columns:
        return above
    return f"{above} OR (#v{place} = :v{place} AND ({_above(place + 1, columns)}))"


def placeholders(rule: Rule, values: "tuple[Any, ...]") -> tuple[dict[str, str], dict[str, Any]]:
    """The names and values of `condition`."""
    names = {f"#v{place}": name for place, name in enumerate(rule.columns)}
    return names, {f":v{place}": value for place, value in enumerate(values)}


def is_late(version: Version, told_ms: int, now_ms: int, keep_ms: int) -> bool:
    """Whether a tombstone above the version may be gone. ``told_ms``: when it was written, for those that don't say."""
    ms = told_ms if version.ms is None else version.ms
    return now_ms - ms > keep_ms - CLOCK_MARGIN_MS


def expires_s(ms: int, keep_ms: int) -> int:
    """Until when a tombstone written at ``ms`` stays, in seconds since the epoch, as DynamoDB wants it."""
    return -(-(ms + keep_ms) // 1000)


def is_same(one: Image, other: Image) -> bool:
    """Sets have no order. Raises PoisonEvent for what is no item."""
    return encode_sorted(plain_image(one)) == encode_sorted(plain_image(other))
