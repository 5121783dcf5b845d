"""Leases and checkpoints in a DynamoDB table: one row a shard, every write conditional.

Table: partition key ``pk`` (source), sort key ``sk`` (``shard#<id>``, ``link#<link>``, ``bulletin``, ``turn`` or
``retention``); rows look as `aws.lease_rows` has it. A renewal is one UpdateItem that beats, fences and stores the
checkpoints of the given links. It is conditional on the beat besides owner and epoch, so that a request delayed on its
way can't put older checkpoints over newer ones. A write whose answer was lost and that is repeated, by us or by
botocore's retries, meets its own effect as a failed condition: so a failed condition is looked into, and only somebody
else's hand in the row means that the lease is gone.
"""

from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from replicator.aws.lease_rows import (
    FORMAT,
    SHARD,
    Item,
    check_format,
    new_row,
    read_position,
    read_row,
    row_key,
    shard_key,
    stored_checkpoint,
)
from replicator.core.bulletin import Bulletin
from replicator.core.model import Checkpoint, Lease, LinkName, Position, Shard, SourceName, position_text
from replicator.core.retention import Kept
from replicator.errors import Fenced, Misconfigured, StoreUnavailable

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

BULLETIN, TURN, RETENTION = "bulletin", "turn", "retention"

T = TypeVar("T")


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
            "ExpressionAttributeValues": {":pk": {"S": source}, ":sk": {"S": SHARD}},
            "ConsistentRead": True,
        }
        while True:
            page = await self._call("Query", self._client.query(**request))
            found.extend(read_row(self._table, item) for item in page["Items"])
            if "LastEvaluatedKey" not in page:
                return found
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    async def create(self, source: SourceName, shard: Shard, incarnation: str) -> None:
        with suppress(_ConditionFailed):
            await self._put(new_row(source, shard, incarnation))

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
                    Key=shard_key(seen.source, seen.shard),
                    ConditionExpression=condition,
                    ExpressionAttributeNames={"#owner": "owner"},
                    ExpressionAttributeValues=values,
                ),
            )
        except _ConditionFailed:
            return False
        return True

    async def link_start(self, source: SourceName, link: LinkName, proposed: Position) -> Position:
        key = row_key(source, f"link#{link}")
        try:
            await self._put({**key, "v": {"N": str(FORMAT)}, "start": {"S": position_text(proposed)}})
        except _ConditionFailed:
            item = await self._get(key)
            if item is None:
                raise StoreUnavailable(f"{self._table}: the start of {link} was removed meanwhile") from None
            check_format(self._table, item)
            return read_position(self._table, item, item["start"]["S"])
        return proposed

    async def kept(self, source: SourceName) -> Kept | None:
        item = await self._get(row_key(source, RETENTION))
        if item is None:
            return None
        check_format(self._table, item)
        return Kept(int(item["retention_ms"]["N"]), int(item["number"]["N"]))

    async def keep(self, source: SourceName, kept: Kept) -> None:
        """The time is the number, which only grows."""
        number, retention_ms = {"N": str(kept.since_ms)}, {"N": str(kept.retention_ms)}
        row = {**row_key(source, RETENTION), "v": {"N": str(FORMAT)}, "number": number, "retention_ms": retention_ms}
        await self._put_if_higher(row)

    async def bulletin(self, source: SourceName) -> Bulletin | None:
        # Read eventually consistently, for half the price: an older post is no worse than one that came a moment later.
        item = await self._get(row_key(source, BULLETIN), is_consistent=False)
        return Bulletin(int(item["number"]["N"]), item["data"]["B"]) if item is not None else None

    async def take_turn(self, source: SourceName, turn: int) -> bool:
        return await self._put_if_higher({**row_key(source, TURN), "number": {"N": str(turn)}})

    async def post(self, source: SourceName, bulletin: Bulletin) -> None:
        number, data = {"N": str(bulletin.number)}, {"B": bulletin.data}
        await self._put_if_higher({**row_key(source, BULLETIN), "number": number, "data": data})

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
                Key=shard_key(row.source, row.shard),
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
        return read_row(self._table, answer["Attributes"])

    async def _put(self, item: Item, or_if: str = "", **names_and_values: Item | dict[str, str]) -> None:
        condition = "attribute_not_exists(pk)" + or_if
        await self._call(
            "PutItem",
            self._client.put_item(TableName=self._table, Item=item, ConditionExpression=condition, **names_and_values),
        )

    async def _put_if_higher(self, item: Item) -> bool:
        """Whether the item's number was higher than the stored one's."""
        names, values = {"#number": "number"}, {":number": item["number"]}
        try:
            await self._put(
                item,
                " OR #number < :number",
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
            )
        except _ConditionFailed:
            return False
        return True

    async def _get(self, key: Item, *, is_consistent: bool = True) -> Item | None:
        call = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=is_consistent)
        answer = await self._call("GetItem", call)
        item: Item | None = answer.get("Item")
        return item

    async def _read(self, row: Lease) -> Lease | None:
        item = await self._get(shard_key(row.source, row.shard))
        return read_row(self._table, item) if item is not None else None

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
        values[f":c{index}"] = {"M": stored_checkpoint(checkpoint)}
        change += f", checkpoints.#l{index} = :c{index}"
    return change, names, values


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
