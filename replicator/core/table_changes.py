"""Change records of a table as writes of the same table in another region.

How it works: the new image of a record is put as it is, all or nothing, where its version is the greater one
(`core.convergence`). A removal is put as a grave. Nothing is ever removed: time to live does that in each region.

Why nothing loops: an image bears its writer's region, by which change capture there tells it from a write of its own
and leaves it alone. Graves alone bear the region that they are put in, and are told once more. Each put of an item is
of a greater version and region than what stood there, and none is made on the way, so there is an end: a write of a
user is told by one region, a grave once by each.
"""

import msgspec
from msgspec import Struct

from replicator.core.changes import Change, Image
from replicator.core.convergence import (
    CONFLICT,
    NOT_CONVERGENT,
    SUPERSEDED,
    Rule,
    Version,
    expires_s,
    grave_of,
    is_deleted,
    is_grave_of,
    is_late,
    is_same,
    version_of,
)
from replicator.core.model import Region
from replicator.errors import PoisonEvent, Refused

ITEM_BYTES_MAX = 400 * 1024
"""Source: DynamoDB Developer Guide, "Quotas": an item with its names. DynamoDB itself refuses larger ones."""
EVENT_BYTES_MAX = 1024 * 1024
"""Of a change record with both images."""

_changes = msgspec.json.Decoder(Change)


class TableRules(Struct, frozen=True):
    """Of the table in the region ``here``. ``keep_ms``: how long tombstones stay at least."""

    table: str
    here: Region
    rule: Rule
    keep_ms: int


class Write(Struct, frozen=True):
    """An item to be put where it is above what stands there. ``must_exist``: and only where something does."""

    item: Image
    version: Version
    must_exist: bool


class Lost(Struct, frozen=True):
    """Why an item was not put: ``reason`` is `CONFLICT` or `SUPERSEDED`."""

    reason: str
    detail: str


def write_of(data: bytes, rules: TableRules, keys: frozenset[str], now_ms: int) -> Write:
    """What a change record asks for. ``keys``: the names of the table's own. Raises Refused."""
    change = _change(data)
    if change.dynamodb.keys is None or frozenset(change.dynamodb.keys) != keys:
        names = ", ".join(sorted(change.dynamodb.keys or ()))
        raise Refused(f"table {rules.table} has the keys {', '.join(sorted(keys))}, and the change is of {names}")
    told_ms = change.dynamodb.changed_ms
    item = _grave(change, rules, told_ms) if change.event_name == "REMOVE" else _written(change, rules)
    version = _version(rules, item, "the item")
    is_in_time = is_deleted(rules.rule, item) or not is_late(version, told_ms, now_ms, rules.keep_ms)
    return Write(item, version, must_exist=not is_in_time)


def _change(data: bytes) -> Change:
    try:
        return _changes.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Refused(
            f"a table takes change records of DynamoDB: {exc}; let their source have mode raw, and name it in "
            "changes_of where the hub holds other events too"
        ) from exc


def _written(change: Change, rules: TableRules) -> Image:
    item, before = change.dynamodb.new_image, change.dynamodb.old_image
    if item is None:
        raise Refused("the change record has no new image: switch the table's stream to NEW_AND_OLD_IMAGES")
    version = _version(rules, item, "the item")
    older = version_of(rules.rule, before) if before is not None else None
    if older is not None and version.compares(older) and not version.is_above(older):
        raise _not_convergent(
            f"{rules.table}: version {version} was written over {older}, which is not below it; every writer has to "
            "give a new version, and to write on condition that the stored one is smaller"
        )
    if is_deleted(rules.rule, item):
        _check_stay(item, version, rules)
    return item


def _check_stay(item: Image, version: Version, rules: TableRules) -> None:
    """A tombstone that goes too early lets older changes in that another region refuses."""
    expires = item.get(rules.rule.expires, {}).get("N")
    if expires is None or version.ms is None:
        return
    least_s = expires_s(version.ms, rules.keep_ms)
    if float(expires) < least_s:
        raise _not_convergent(
            f"{rules.table}: the tombstone of version {version} expires at {expires}, before {least_s}; let writers "
            f"keep them for tombstones_s ({rules.keep_ms // 1000}) or longer"
        )


def _grave(change: Change, rules: TableRules, told_ms: int) -> Image:
    """For an item that an application removed; deletions by time to live are every region's own."""
    rule, removed = rules.rule, change.dynamodb.old_image
    if change.is_ttl:
        raise Refused("time to live deletes in every region by itself; set ttl_deletes: ignore on the table's source")
    if removed is None or change.dynamodb.keys is None:
        raise Refused("the change record has no old image: switch the table's stream to NEW_AND_OLD_IMAGES")
    version = _version(rules, removed, "the removed item")
    if rule.order:
        raise _not_convergent(
            f"{rules.table}: an item was removed, and the table has an order of its own, in which nothing can stand "
            "for that; delete softly"
        )
    ms = max(version.ms or 0, told_ms)
    return {
        **change.dynamodb.keys,
        rule.version: {"S": grave_of(version.values[0]["S"])},
        rule.region: {"S": rules.here},
        rule.deleted: {"BOOL": True},
        rule.expires: {"N": str(expires_s(ms, rules.keep_ms))},
    }


def _version(rules: TableRules, image: Image, what: str) -> Version:
    version = version_of(rules.rule, image)
    if version is None:
        names = " and ".join(rules.rule.columns)
        raise _not_convergent(f"{rules.table}: {what} has no version in {names}; let every writer give it one")
    return version


def _not_convergent(detail: str) -> Refused:
    return Refused(f"not convergent: {detail}", reason=NOT_CONVERGENT)


def judged(write: Write, stored: Image | None, rules: TableRules) -> Lost | None:
    """Why the write was not made where ``stored`` stands; None when that is the write itself. Raises Refused."""
    rule, mine = rules.rule, write.version
    if stored is None:
        return Lost(CONFLICT, f"version {mine} came too late: where no item stands, a tombstone may have been")
    other = version_of(rule, stored)
    if other is None or not other.compares(mine):
        names = " and ".join(rule.columns)
        raise _not_convergent(f"{rules.table}: what is stored has no version in {names} that compares with {mine}")
    if other.values == mine.values:
        _check_equal(write, stored, rules)
        return None
    if other.region == mine.region or is_grave_of(rule, other, mine):
        return Lost(SUPERSEDED, f"version {mine} was followed by {other}")
    return Lost(CONFLICT, f"version {mine} lost against {other}")


def _check_equal(write: Write, stored: Image, rules: TableRules) -> None:
    try:
        if is_same(write.item, stored):
            return
    except PoisonEvent as exc:
        raise Refused(str(exc)) from exc
    raise _not_convergent(f"{rules.table}: two different items have the version {write.version}")
