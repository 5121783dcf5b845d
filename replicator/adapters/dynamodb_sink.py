"""A table in a peer region as a sink: one PutItem for each change, on condition that its version is the greater one.

Items fail and succeed by themselves, so one request of the worker is many of DynamoDB's, so many at a time. Repeating a
write that took effect changes nothing (`core.convergence`), so one whose answer was lost is simply made again, and
nothing is read back.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec

from replicator.aws.dated_peer import DatedPeer
from replicator.aws.dynamodb_api import ConditionFailed, DynamoDbApi
from replicator.aws.never_read_back import NeverReadBack
from replicator.aws.transport import ServiceError
from replicator.core.convergence import NEVER_DOUBLED_MS, condition, placeholders
from replicator.core.model import Origin, SourceName
from replicator.core.outcome import Outcome, Passed
from replicator.core.peer_clock import PeerTime
from replicator.core.table_changes import EVENT_BYTES_MAX, TableRules, Write, judged, write_of
from replicator.errors import InDoubt, Misconfigured, Refused, TransientError
from replicator.ports import Entry, SinkLimits

ENTRIES_MAX = 100
REQUEST_BYTES_MAX = 4 * 1024 * 1024
"""Of a worker's request; bounds of ours, DynamoDB sees single items."""
PUTS_MAX = 32
"""Under way at a time, for all shards of a link in a worker."""
OTHER_SOURCE = "other_source"
KEY = "#key"


class DynamoDbSink(NeverReadBack):
    """Implements `ports.Sink`. ``origin_of`` reads an event's tag.

    ``changes_of``: the source whose events are applied, None for all. Others are passed over.
    """

    why = "a table is not read back: repeating is harmless"

    def __init__(
        self,
        api: DynamoDbApi,
        *,
        rules: TableRules,
        origin_of: Callable[[bytes], Origin | None],
        changes_of: SourceName | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._api = api
        self._rules = rules
        self._origin_of = origin_of
        self._changes_of = changes_of
        self._now_ms = now_ms
        self._places = asyncio.Semaphore(PUTS_MAX)
        self._keys: frozenset[str] = frozenset()
        self._limits = SinkLimits(ENTRIES_MAX, REQUEST_BYTES_MAX, EVENT_BYTES_MAX, NEVER_DOUBLED_MS)
        self._peer = DatedPeer(api.table, api.ask)

    @property
    def limits(self) -> SinkLimits:
        return self._limits

    async def put(self, entries: Sequence[Entry], *, signed_ms: int | None = None) -> Sequence[Outcome]:
        """Raises TransientError when that is what became of every entry that was to be written."""
        await self._look()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._one(entry, signed_ms)) for entry in entries]
        results = [task.result() for task in tasks]
        if results and all(isinstance(result, TransientError) for result in results):
            raise _first(results)
        return [result.code if isinstance(result, TransientError) else result for result in results]

    async def _look(self) -> None:
        """At the table, once. Raises TransientError, Misconfigured for one that can't be written so."""
        if self._keys:
            return
        try:
            table = await self._api.describe()
        except ServiceError as exc:
            raise TransientError(f"table {self._api.table}: {exc}", code=exc.code) from exc
        if table.replicas:
            raise Misconfigured(
                f"table {self._api.table} is a global table, which replicates by itself; name another as the sink",
                code="global_table",
            )
        self._keys = frozenset(key.attribute_name for key in table.key_schema)

    async def _one(self, entry: Entry, signed_ms: int | None) -> Outcome | TransientError:
        if not self._is_ours(entry.data):
            return Passed(OTHER_SOURCE)
        try:
            write = write_of(entry.data, self._rules, self._keys, self._now_ms())
            return await self._written(write, signed_ms)
        except ServiceError as exc:
            return Refused(f"table {self._api.table} takes no such item: {exc}")
        except Refused as exc:
            return exc
        except InDoubt as exc:
            return TransientError(str(exc), code="no_answer")
        except TransientError as exc:
            return exc

    def _is_ours(self, data: bytes) -> bool:
        if self._changes_of is None:
            return True
        origin = self._origin_of(data)
        return origin is not None and origin.source == self._changes_of

    async def _written(self, write: Write, signed_ms: int | None) -> Outcome:
        rule = self._rules.rule
        text = condition(len(rule.columns))
        names, values = placeholders(rule, write.version.values)
        if write.must_exist:
            text, names = f"attribute_exists({KEY}) AND ({text})", {**names, KEY: min(self._keys)}
        async with self._places:
            try:
                answer = await self._api.put(write.item, text, names, values, signed_ms)
            except msgspec.DecodeError as exc:
                raise TransientError(f"an answer of DynamoDB can't be read: {exc}", code="bad_reply") from exc
        if not isinstance(answer, ConditionFailed):
            self._peer.answered(answer)
            return None
        lost = judged(write, answer.stored, self._rules)
        return None if lost is None else Passed(lost.reason, f"{self._api.table}: {lost.detail}")

    async def peer_time(self) -> PeerTime:
        return await self._peer.time()

    async def refuses(self, dated_ms: int) -> bool:
        return await self._peer.refuses(dated_ms)


def _first(results: Sequence[Outcome | TransientError]) -> TransientError:
    """What an operator must do something about goes before what is over by itself."""
    errors = [result for result in results if isinstance(result, TransientError)]
    return next((error for error in errors if isinstance(error, Misconfigured)), errors[0])
