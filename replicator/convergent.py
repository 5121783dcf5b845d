"""For services that write to a table which replicator keeps equal in several regions: versions, conditions, tombstones.

    writer = Writer("us-east-1")
    client.put_item(TableName="orders", **writer.put({"pk": {"S": "o-1"}, "total": {"N": "5"}}))

Every write has a new version and is made only where a smaller one stands: `CONDITION`. A
ConditionalCheckFailedException says that a greater one does, of another writer or another region; its
``response["Item"]`` is what stands there. Look at it, decide, and write again with ``over=`` that item. Whoever reads
an item before writing gives it as ``over`` at once. Then a write is above what it follows whatever the clocks say;
without, a service whose clock is behind can't write until that has passed.

Deleting leaves a tombstone of nothing but key and marks; readers take it for absent (`Writer.is_deleted`). Switch time
to live on for the attribute ``expires``. Items that are removed with `delete_item` are deleted in all regions too, but
what was on its way to this one meanwhile stands here again until that comes back.

All of it makes arguments of boto3's calls: ``plain=True`` for the values of its resources (`Table`), else those of its
clients.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

from replicator.core.convergence import COUNTER_DIGITS, Rule, expires_s, make_version, written_ms

__all__ = ["CONDITION", "KEEP_S", "Writer"]

CONDITION = "attribute_not_exists(#version) OR #version < :version"
KEEP_S = 14 * 86_400
"""How long tombstones stay: as long as ``tombstones_s`` of the sink, or longer."""
COUNTER_MAX = 10**COUNTER_DIGITS - 1

Item = Mapping[str, Any]


class Writer:
    """Of one process in one region, for any number of threads.

    ``keep_s``: how long tombstones stay. ``rule`` names the attributes, ``now_s`` is the clock, in seconds.
    """

    def __init__(
        self,
        region: str,
        *,
        plain: bool = False,
        keep_s: int = KEEP_S,
        rule: Rule | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._region = region
        self._plain = plain
        self._keep_ms = keep_s * 1000
        self._rule = rule or Rule()
        self._now_s = now_s
        self._lock = Lock()
        self._last_ms = 0
        self._counter = 0
        make_version(0, region, 0)

    def version(self, over: Item | None = None) -> str:
        """A new one, above all that this writer made for its clock, and above that of ``over``."""
        with self._lock:
            ms = max(int(self._now_s() * 1000), self._last_ms)
            self._counter = self._counter + 1 if ms == self._last_ms else 0
            if self._counter > COUNTER_MAX:
                ms, self._counter = ms + 1, 0
            self._last_ms = ms
            counter = self._counter
        # What stands there may be ahead of any clock; the writer's own time does not follow it.
        return make_version(max(ms, self._written_ms(over) + 1), self._region, counter)

    def put(self, item: Item, *, over: Item | None = None) -> dict[str, Any]:
        """Arguments of `put_item`."""
        version = self.version(over)
        gone = (self._rule.deleted, self._rule.expires)
        kept = {name: value for name, value in item.items() if name not in gone}
        return {"Item": {**kept, **self._stamp(version)}, **self._conditional(version)}

    def update(
        self, key: Item, values: Item, *, remove: Sequence[str] = (), over: Item | None = None
    ) -> dict[str, Any]:
        """Arguments of `update_item`: set these attributes and remove those. A tombstone becomes an item again."""
        version = self.version(over)
        arguments = self._conditional(version)
        names, given = arguments["ExpressionAttributeNames"], arguments["ExpressionAttributeValues"]
        sets = []
        for place, (name, value) in enumerate({**values, **self._stamp(version)}.items()):
            names[f"#s{place}"], given[f":s{place}"] = name, value
            sets.append(f"#s{place} = :s{place}")
        gone = [*remove, self._rule.deleted, self._rule.expires]
        names |= {f"#r{place}": name for place, name in enumerate(gone)}
        removes = ", ".join(f"#r{place}" for place in range(len(gone)))
        return {"Key": dict(key), "UpdateExpression": f"SET {', '.join(sets)} REMOVE {removes}", **arguments}

    def delete(self, key: Item, *, over: Item | None = None) -> dict[str, Any]:
        """Arguments of `put_item`: a tombstone under the key."""
        version = self.version(over)
        expires = expires_s(written_ms(version) or 0, self._keep_ms)
        marks = {
            self._rule.deleted: True if self._plain else {"BOOL": True},
            self._rule.expires: expires if self._plain else {"N": str(expires)},
        }
        return {"Item": {**key, **marks, **self._stamp(version)}, **self._conditional(version)}

    def is_deleted(self, item: Item | None) -> bool:
        """Whether what was read is absent, or a tombstone."""
        return item is None or item.get(self._rule.deleted) in (True, {"BOOL": True})

    def _stamp(self, version: str) -> dict[str, Any]:
        return {self._rule.version: self._text(version), self._rule.region: self._text(self._region)}

    def _conditional(self, version: str) -> dict[str, Any]:
        return {
            "ConditionExpression": CONDITION,
            "ExpressionAttributeNames": {"#version": self._rule.version},
            "ExpressionAttributeValues": {":version": self._text(version)},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }

    def _text(self, text: str) -> Any:
        return text if self._plain else {"S": text}

    def _written_ms(self, over: Item | None) -> int:
        value = (over or {}).get(self._rule.version)
        text = value.get("S") if isinstance(value, Mapping) else value
        return (written_ms(text) if isinstance(text, str) else None) or -1
