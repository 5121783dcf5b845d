"""Tables of several regions as dictionaries, with the rules of replication between them and no I/O.

Conditions are judged by moto's parser, change records by the format of a source, so what is tested are the expressions
and images that leave, not a second opinion on versions.
"""

import json
from typing import Any

from moto.dynamodb.comparisons import get_filter_expression
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.models.dynamo_type import Item as MotoItem

from replicator.core.changes import ChangeFormat, ChangeRules
from replicator.core.convergence import Rule, condition, placeholders
from replicator.core.model import Region
from replicator.core.table_changes import Lost, TableRules, judged, write_of

Item = dict[str, Any]
KEYS = frozenset({"pk"})
KEEP_MS = 14 * 86_400_000


def holds(expression: str, names: dict[str, str], values: dict[str, Any], item: Item | None) -> bool:
    """What DynamoDB would say."""
    stored = None if item is None else MotoItem(DynamoType(item["pk"]), None, item)
    return bool(get_filter_expression(expression, names, values).expr(stored))


class Table:
    """Of one region. ``told``: the events that change capture makes of what is done here, oldest first."""

    def __init__(self, region: str, rule: Rule, now_ms: int) -> None:
        self.region = region
        self.now_ms = now_ms
        self.items: dict[str, Item] = {}
        self.told: list[tuple[str, bytes]] = []
        self.outcomes: list[Lost | None] = []
        self.replaced: list[Item] = []
        self._rule = rule
        self._rules = TableRules("orders", Region(region), rule, KEEP_MS)
        self._format = ChangeFormat(
            ChangeRules(
                here=Region(region),
                table="orders",
                mode="raw",
                written_here="stamp",
                region_attribute=rule.region,
                write_id_attribute=rule.columns[0],
                hard_deletes="local",
                ttl_deletes="ignore",
            )
        )
        self._changes = 0

    # --- as an application ---------------------------------------------------------------------------------------

    def put(self, arguments: Item) -> bool:
        """Arguments of `put_item`; whether the condition held."""
        item = arguments["Item"]
        key, stored = item["pk"]["S"], self.items.get(item["pk"]["S"])
        named = arguments["ExpressionAttributeNames"], arguments["ExpressionAttributeValues"]
        if not holds(arguments["ConditionExpression"], *named, stored):
            return False
        self._change(key, item)
        return True

    def remove(self, key: str, *, by_time_to_live: bool = False) -> None:
        if key in self.items:
            self._change(key, None, by_time_to_live=by_time_to_live)

    def _change(self, key: str, new: Item | None, *, by_time_to_live: bool = False) -> None:
        old = self.items.pop(key, None)
        if new is not None:
            self.items[key] = new
        self._changes += 1
        change: Item = {
            "eventName": {(True, True): "MODIFY", (False, True): "INSERT"}.get(
                (old is not None, new is not None), "REMOVE"
            ),
            "dynamodb": {
                "ApproximateCreationDateTime": self.now_ms // 1000,
                "Keys": {"pk": {"S": key}},
                "SequenceNumber": str(self._changes),
            },
        }
        images = {"OldImage": old, "NewImage": new}
        change["dynamodb"] |= {name: image for name, image in images.items() if image is not None}
        if by_time_to_live:
            change["userIdentity"] = {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}
        decoded = self._format.decode(json.dumps(change).encode())
        if not decoded.drop:
            self.told.append((key, decoded.with_tag(b"null")))

    # --- as a sink -----------------------------------------------------------------------------------------------

    def apply(self, data: bytes) -> Lost | None:
        """What the sink does with one event. Raises Refused."""
        write = write_of(data, self._rules, KEYS, self.now_ms)
        names, values = placeholders(self._rule, write.version.values)
        key = write.item["pk"]["S"]
        stored = self.items.get(key)
        is_there = stored is not None or not write.must_exist
        if is_there and holds(condition(len(self._rule.columns)), names, values, stored):
            self._change(key, write.item)
            return None
        lost = judged(write, stored, self._rules)
        self.outcomes.append(lost)
        return lost


class World:
    """Every region tells every other one, in order per key and link, otherwise in any order and more than once."""

    def __init__(self, regions: tuple[str, ...], rule: Rule | None = None, now_ms: int = 1_800_000_000_000) -> None:
        self.tables = {region: Table(region, rule or Rule(), now_ms) for region in regions}
        self._sent: dict[tuple[str, str, str], int] = {}

    def links(self) -> list[tuple[str, str]]:
        return [(here, peer) for here in self.tables for peer in self.tables if here != peer]

    def deliver(self, here: str, peer: str, key: str, *, again: int = 0) -> bool:
        """The next event of a key, and the last ones ``again``; whether there was one."""
        events = [data for told, data in self.tables[here].told if told == key]
        sent = self._sent.get((here, peer, key), 0)
        if sent >= len(events):
            return False
        for data in events[max(0, sent - again) : sent + 1]:
            self.tables[peer].apply(data)
        self._sent[here, peer, key] = sent + 1
        return True

    def settle(self) -> int:
        """Deliver everything; how many events that took."""
        count = 0
        while True:
            keys = {key for table in self.tables.values() for key, _ in table.told}
            moved = sum(self.deliver(*link, key) for link in self.links() for key in sorted(keys))
            if not moved:
                return count
            count += moved
            assert count < 10_000, "it never ends"
