"""A lease row as DynamoDB stores it, in both directions. An unknown format version is refused, never guessed at."""

from typing import Any

from replicator.core.model import (
    Checkpoint,
    ClaimMark,
    Lease,
    Lifetime,
    LinkName,
    Position,
    Shard,
    ShardId,
    SourceName,
    parse_position,
    position_text,
)
from replicator.errors import ConfigError

FORMAT = 1
SHARD = "shard#"

Item = dict[str, Any]  # DynamoDB's typed attribute values, as botocore takes and gives them


def row_key(source: SourceName, sort: str) -> Item:
    return {"pk": {"S": source}, "sk": {"S": sort}}


def shard_key(source: SourceName, shard: ShardId) -> Item:
    return row_key(source, SHARD + shard)


def new_row(source: SourceName, shard: Shard, incarnation: str) -> Item:
    """A row that nobody has owned yet."""
    return {
        **shard_key(source, shard.id),
        "v": {"N": str(FORMAT)},
        "parents": {"L": [{"S": parent} for parent in shard.parents]},
        "incarnation": {"S": incarnation},
        "epoch": {"N": "0"},
        "beat": {"N": "0"},
        "checkpoints": {"M": {}},
    }


def read_row(table: str, item: Item) -> Lease:
    """Raises ConfigError, naming ``table`` and the row, for what this version can't read."""
    check_format(table, item)
    return Lease(
        source=SourceName(item["pk"]["S"]),
        shard=ShardId(item["sk"]["S"].removeprefix(SHARD)),
        parents=tuple(ShardId(parent["S"]) for parent in item["parents"]["L"]),
        incarnation=item["incarnation"]["S"],
        owner=item["owner"]["S"] if "owner" in item else None,
        epoch=int(item["epoch"]["N"]),
        beat=int(item["beat"]["N"]),
        wanted_by=item["wanted_by"]["S"] if "wanted_by" in item else None,
        checkpoints={
            LinkName(link): _checkpoint(table, item, stored["M"]) for link, stored in item["checkpoints"]["M"].items()
        },
    )


def check_format(table: str, item: Item) -> None:
    """Raises ConfigError."""
    version = item.get("v", {}).get("N")
    if version != str(FORMAT):
        raise ConfigError(
            f"{_where(table, item)}: format version {version}, this version of replicator reads {FORMAT}: "
            "upgrade this worker, or give it another table (leases.table)"
        )


def read_position(table: str, item: Item, text: str) -> Position:
    """Raises ConfigError."""
    try:
        return parse_position(text)
    except ValueError as exc:
        raise ConfigError(f"{_where(table, item)}: {exc}; correct or remove the row") from exc


def _where(table: str, item: Item) -> str:
    return f"lease table {table}, row {item['pk']['S']} {item['sk']['S']}"


def _checkpoint(table: str, item: Item, stored: Item) -> Checkpoint:
    released = stored.get("released", {}).get("S")
    return Checkpoint(
        read_position(table, item, stored["position"]["S"]),
        int(stored["floor"]["N"]) if "floor" in stored else None,
        _parse_mark(released, stored) if released is not None else None,
        _parse_lifetime(stored["lifetime"]["S"]) if "lifetime" in stored else None,
    )


def stored_checkpoint(checkpoint: Checkpoint) -> Item:
    stored: Item = {"position": {"S": position_text(checkpoint.position)}}
    if checkpoint.attempt_floor_ms is not None:
        stored["floor"] = {"N": str(checkpoint.attempt_floor_ms)}
    if checkpoint.released is not None:
        stored["released"] = {"S": f"{checkpoint.released.incarnation}:{checkpoint.released.batch}"}
        if checkpoint.released.settled:
            stored["settled"] = {"N": str(checkpoint.released.settled)}
        if checkpoint.released.age_ms:
            stored["marks_age"] = {"N": str(checkpoint.released.age_ms)}
    if checkpoint.lifetime is not None:
        # A worker that doesn't know this attribute leaves it out when it writes, and so is waited for in full.
        stored["lifetime"] = {"S": f"{checkpoint.lifetime.epoch}:{checkpoint.lifetime.ms}"}
    return stored


def _parse_mark(text: str, stored: Item) -> ClaimMark:
    incarnation, _, batch = text.rpartition(":")
    settled, age_ms = [int(stored[name]["N"]) if name in stored else 0 for name in ("settled", "marks_age")]
    return ClaimMark(incarnation, int(batch), settled, age_ms)


def _parse_lifetime(text: str) -> Lifetime:
    epoch, _, ms = text.partition(":")
    return Lifetime(int(ms), int(epoch))


def item_bytes(item: Item) -> int:
    """What DynamoDB bills: names and values; 3 bytes a map or list, 1 each member, half a byte a digit.

    "DynamoDB item sizes and formats", developer guide.
    """
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def _value_bytes(value: Item) -> int:
    match value:
        case {"S": str(text)}:
            return len(text.encode())
        case {"N": str(digits)}:
            return (len(digits.strip("0") or "0") + 1) // 2 + 1
        case {"L": list(members)}:
            return 3 + sum(1 + _value_bytes(member) for member in members)
        case {"M": dict(members)}:
            return 3 + len(members) + item_bytes(members)
    raise ValueError(f"a lease row has no such value: {value!r}")
