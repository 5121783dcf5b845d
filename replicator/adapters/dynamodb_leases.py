"""Leases and checkpoints in a DynamoDB table: one row a shard, every write conditional.

Table: partition key ``pk`` (source), sort key ``sk`` (``shard#<id>`` or ``link#<link>``). A renewal is one UpdateItem
that beats, fences and stores the checkpoints of the given links. It is conditional on the beat besides owner and epoch,
so that a request delayed on its way can't put older checkpoints over newer ones. A write whose answer was lost and that
is repeated, by us or by botocore's retries, meets its own effect as a failed condition: so a failed condition is looked
into, and only somebody else's hand in the row means that the lease is gone.
"""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

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
from replicator.errors import ConfigError, Fenced, Misconfigured, StoreUnavailable

FORMAT = 1
OPERATOR_CODES = frozenset(
    {
        "AccessDeniedException",
        "ResourceNotFoundException",
        "UnrecognizedClientException",
        "ValidationException",  # the table has other keys than ours
    }
)
OWNER_WRITES_MAX = 3
"""How often an owner's write is tried again because an earlier one of its own took effect unanswered."""

T = TypeVar("T")
Item = dict[str, Any]  # DynamoDB's typed attribute values, as botocore takes and gives them


class _ConditionFailed(Exception):
    """The row is not as the caller saw it."""


class DynamoDbLeases:
    """Implements `ports.LeaseStore`; ``client`` is an aiobotocore DynamoDB client, closed by whoever made it."""

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    async def rows(self, source: SourceName) -> Sequence[Lease]:
        found: list[Lease] = []
        request: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": "pk = :pk AND begins_with(sk, :sk)",
            "ExpressionAttributeValues": {":pk": {"S": source}, ":sk": {"S": "shard#"}},
            "ConsistentRead": True,
        }
        while True:
            page = await self._call("Query", self._client.query(**request))
            found.extend(self._lease(item) for item in page["Items"])
            if "LastEvaluatedKey" not in page:
                return found
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    async def create(self, source: SourceName, shard: Shard, incarnation: str) -> None:
        item: Item = {
            **_key(source, f"shard#{shard.id}"),
            "v": {"N": str(FORMAT)},
            "parents": {"L": [{"S": parent} for parent in shard.parents]},
            "incarnation": {"S": incarnation},
            "epoch": {"N": "0"},
            "beat": {"N": "0"},
            "checkpoints": {"M": {}},
        }
        try:
            await self._put(item)
        except _ConditionFailed:
            return

    async def acquire(self, seen: Lease, owner: str) -> Lease | None:
        condition, values = _as_seen(seen)
        values |= {":me": {"S": owner}, ":one": {"N": "1"}, ":v": {"N": str(FORMAT)}}
        change = "SET #owner = :me, epoch = epoch + :one, beat = beat + :one REMOVE wanted_by"
        try:
            return await self._update(seen, change, f"{condition} AND v = :v", values)
        except _ConditionFailed:
            row = await self._read(seen)
            # The answer to an earlier try of ours may have been lost.
            ours = (owner, seen.epoch + 1, seen.beat + 1)
            return row if row is not None and (row.owner, row.epoch, row.beat) == ours else None

    async def renew(self, held: Lease, checkpoints: Mapping[LinkName, Checkpoint]) -> Lease:
        change, names, values = _checkpoint_change(checkpoints)
        values |= {":one": {"N": "1"}}
        return await self._owned(held, f"SET beat = beat + :one{change}", names, values)

    async def release(self, held: Lease, checkpoints: Mapping[LinkName, Checkpoint]) -> None:
        change, names, values = _checkpoint_change(checkpoints)
        values |= {":one": {"N": "1"}}
        try:
            await self._owned(held, f"SET beat = beat + :one{change} REMOVE #owner", names, values)
        except Fenced:
            row = await self._read(held)
            # Nobody but us can have released it under our epoch: the answer to an earlier try was lost.
            if row is None or row.owner is not None or row.epoch != held.epoch:
                raise

    async def ask(self, seen: Lease, wanted_by: str) -> bool:
        if seen.owner is None:
            return False
        values = {
            ":owner": {"S": seen.owner},
            ":epoch": {"N": str(seen.epoch)},
            ":me": {"S": wanted_by},
        }
        condition = "#owner = :owner AND epoch = :epoch AND (attribute_not_exists(wanted_by) OR wanted_by = :me)"
        try:
            await self._update(seen, "SET wanted_by = :me", condition, values)
        except _ConditionFailed:
            return False
        return True

    async def delete(self, seen: Lease) -> bool:
        if seen.owner is not None:
            return False
        condition, values = _as_seen(seen)
        try:
            await self._call(
                "DeleteItem",
                self._client.delete_item(
                    TableName=self._table,
                    Key=_key(seen.source, f"shard#{seen.shard}"),
                    ConditionExpression=condition,
                    ExpressionAttributeNames={"#owner": "owner"},
                    ExpressionAttributeValues=values,
                ),
            )
        except _ConditionFailed:
            return False
        return True

    async def link_start(self, source: SourceName, link: LinkName, proposed: Position) -> Position:
        key = _key(source, f"link#{link}")
        try:
            await self._put({**key, "v": {"N": str(FORMAT)}, "start": {"S": position_text(proposed)}})
        except _ConditionFailed:
            item = await self._get(key)
            if item is None:
                raise StoreUnavailable(f"{self._table}: the start of {link} was removed meanwhile") from None
            self._check_format(item, key)
            return self._position(item["start"]["S"], key)
        return proposed

    # --- calls -----------------------------------------------------------------------------------------------------

    async def _owned(self, held: Lease, change: str, names: dict[str, str], values: Item) -> Lease:
        known = held
        for _ in range(OWNER_WRITES_MAX):
            own = {
                ":owner": {"S": known.owner or ""},
                ":epoch": {"N": str(known.epoch)},
                ":beat": {"N": str(known.beat)},
            }
            condition = "#owner = :owner AND epoch = :epoch AND beat = :beat"
            try:
                return await self._update(held, change, condition, values | own, names)
            except _ConditionFailed:
                row = await self._read(held)
            if row is None or (row.owner, row.epoch) != (held.owner, held.epoch):
                raise Fenced(f"lease {held.source}/{held.shard} of {held.owner}, epoch {held.epoch}, is no longer held")
            known = row
        raise StoreUnavailable(
            f"lease table {self._table}: {held.source}/{held.shard} changed under {OWNER_WRITES_MAX} writes in a row"
        )

    async def _update(
        self, row: Lease, change: str, condition: str, values: Item, names: dict[str, str] | None = None
    ) -> Lease:
        answer = await self._call(
            "UpdateItem",
            self._client.update_item(
                TableName=self._table,
                Key=_key(row.source, f"shard#{row.shard}"),
                UpdateExpression=change,
                ConditionExpression=condition,
                ExpressionAttributeNames={
                    **({"#owner": "owner"} if "#owner" in change + condition else {}),
                    **(names or {}),
                },
                ExpressionAttributeValues=values,
                ReturnValues="ALL_NEW",
            ),
        )
        return self._lease(answer["Attributes"])

    async def _put(self, item: Item) -> None:
        await self._call(
            "PutItem",
            self._client.put_item(TableName=self._table, Item=item, ConditionExpression="attribute_not_exists(pk)"),
        )

    async def _get(self, key: Item) -> Item | None:
        answer = await self._call("GetItem", self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True))
        item: Item | None = answer.get("Item")
        return item

    async def _read(self, row: Lease) -> Lease | None:
        item = await self._get(_key(row.source, f"shard#{row.shard}"))
        return self._lease(item) if item is not None else None

    async def _call(self, operation: str, call: Awaitable[T]) -> T:
        where = f"{operation} on lease table {self._table}"
        try:
            return await call
        except ClientError as exc:
            raise self._refused(where, exc) from exc
        except ParamValidationError:
            raise  # a bug of ours, which waiting would only hide
        except (NoCredentialsError, PartialCredentialsError) as exc:
            raise Misconfigured(f"{where}: {exc}; give the task a role", code="no_credentials") from exc
        except (BotoCoreError, OSError, TimeoutError) as exc:
            raise StoreUnavailable(f"{where}: {exc}") from exc

    def _refused(self, where: str, exc: ClientError) -> Exception:
        code = exc.response.get("Error", {}).get("Code", "")
        if code == "ConditionalCheckFailedException":
            return _ConditionFailed(where)
        if code in OPERATOR_CODES:
            return Misconfigured(
                f"{where}: {exc}; make the table (keys pk and sk, both strings) and allow the task role to use it",
                code=code,
            )
        return StoreUnavailable(f"{where}: {exc}", code=code)

    # --- rows ------------------------------------------------------------------------------------------------------

    def _lease(self, item: Item) -> Lease:
        key = {"pk": item["pk"], "sk": item["sk"]}
        self._check_format(item, key)
        return Lease(
            source=SourceName(item["pk"]["S"]),
            shard=ShardId(item["sk"]["S"].removeprefix("shard#")),
            parents=tuple(ShardId(parent["S"]) for parent in item["parents"]["L"]),
            incarnation=item["incarnation"]["S"],
            owner=item["owner"]["S"] if "owner" in item else None,
            epoch=int(item["epoch"]["N"]),
            beat=int(item["beat"]["N"]),
            wanted_by=item["wanted_by"]["S"] if "wanted_by" in item else None,
            checkpoints={
                LinkName(link): self._checkpoint(stored["M"], key) for link, stored in item["checkpoints"]["M"].items()
            },
        )

    def _check_format(self, item: Item, key: Item) -> None:
        version = item.get("v", {}).get("N")
        if version != str(FORMAT):
            raise ConfigError(
                f"lease table {self._table}, row {_text(key)}: format version {version}, this worker knows {FORMAT}; "
                "run a worker that knows it, or use another table"
            )

    def _checkpoint(self, stored: Item, key: Item) -> Checkpoint:
        released = stored.get("released", {}).get("S")
        return Checkpoint(
            self._position(stored["position"]["S"], key),
            int(stored["floor"]["N"]) if "floor" in stored else None,
            _parse_mark(released) if released is not None else None,
            _parse_lifetime(stored["lifetime"]["S"]) if "lifetime" in stored else None,
        )

    def _position(self, text: str, key: Item) -> Position:
        try:
            return parse_position(text)
        except ValueError as exc:
            where = f"lease table {self._table}, row {_text(key)}"
            raise ConfigError(f"{where}: {exc}; correct or remove the row") from exc


def _key(source: SourceName, sort: str) -> Item:
    return {"pk": {"S": source}, "sk": {"S": sort}}


def _text(key: Item) -> str:
    return f"{key['pk']['S']} {key['sk']['S']}"


def _as_seen(seen: Lease) -> tuple[str, Item]:
    """The condition that the row is what was seen. Checkpoints change with the beat only, parents never."""
    values: Item = {
        ":epoch": {"N": str(seen.epoch)},
        ":beat": {"N": str(seen.beat)},
        ":incarnation": {"S": seen.incarnation},
    }
    condition = "epoch = :epoch AND beat = :beat AND incarnation = :incarnation"
    for name, attribute, value in (("#owner", "owner", seen.owner), ("wanted_by", "wanted_by", seen.wanted_by)):
        if value is None:
            condition += f" AND attribute_not_exists({name})"
        else:
            condition += f" AND {name} = :{attribute}"
            values[f":{attribute}"] = {"S": value}
    return condition, values


def _checkpoint_change(checkpoints: Mapping[LinkName, Checkpoint]) -> tuple[str, dict[str, str], Item]:
    names, values, change = {}, {}, ""
    for index, (link, checkpoint) in enumerate(checkpoints.items()):
        names[f"#l{index}"] = str(link)
        values[f":c{index}"] = {"M": _stored(checkpoint)}
        change += f", checkpoints.#l{index} = :c{index}"
    return change, names, values


def _stored(checkpoint: Checkpoint) -> Item:
    stored: Item = {"position": {"S": position_text(checkpoint.position)}}
    if checkpoint.attempt_floor_ms is not None:
        stored["floor"] = {"N": str(checkpoint.attempt_floor_ms)}
    if checkpoint.released is not None:
        stored["released"] = {"S": f"{checkpoint.released.incarnation}:{checkpoint.released.batch}"}
    if checkpoint.lifetime is not None:
        # A worker that doesn't know this attribute leaves it out when it writes, and so is waited for in full.
        stored["lifetime"] = {"S": f"{checkpoint.lifetime.epoch}:{checkpoint.lifetime.ms}"}
    return stored


def _parse_mark(text: str) -> ClaimMark:
    incarnation, _, batch = text.rpartition(":")
    return ClaimMark(incarnation, int(batch))


def _parse_lifetime(text: str) -> Lifetime:
    epoch, _, ms = text.partition(":")
    return Lifetime(int(ms), int(epoch))


async def ensure_table(client: Any, table: str) -> None:
    """Make the lease table on demand billing unless it exists; for development, Terraform makes the real one."""
    try:
        await client.create_table(
            TableName=table,
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            BillingMode="PAY_PER_REQUEST",
        )
    except ClientError as exc:
        if exc.response.get("Error", {}).get("Code") != "ResourceInUseException":
            raise
    await client.get_waiter("table_exists").wait(TableName=table)
