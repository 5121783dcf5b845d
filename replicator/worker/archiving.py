"""What happens to each record on its way into the lake: it is made a line, whatever the topology and filters say.

No copy is left out, unlike on the way to a peer (`worker.admission`): the lake holds what the hub holds. What can't be
decoded goes to quarantine with its bytes, because nobody knows what it is.
"""

from collections.abc import Sequence

from replicator.core.lake import Archived, encode_line
from replicator.errors import PoisonEvent
from replicator.ports import Entry
from replicator.worker.admission import Gate
from replicator.worker.prepare import Prepared
from replicator.worker.span import Item, Span


class Archiving(Gate):
    """The gate of one shard into the lake."""

    async def admit(self, span: Span, records: Sequence[Prepared]) -> list[Item]:
        """The events to archive, in source order; ``span.pending`` counts them."""
        items: list[Item] = []
        for prepared in records:
            try:
                line = self._line(prepared)
                if len(line) > self._size_max:
                    raise self._oversize(len(line))
            except PoisonEvent as poison:
                await self.quarantine(prepared, poison, attempts=0)
                continue
            span.size_bytes += len(line)
            span.pending += 1
            items.append(Item(prepared, span, Entry(line, prepared.record.partition_key), len(line), len(items)))
        return items

    def _line(self, prepared: Prepared) -> bytes:
        """Raises PoisonEvent."""
        record = prepared.record
        known = self._preparer.known(prepared)
        # Of an event that is redriven this is where it stood when it was read.
        here = prepared.birthplace.of(record)
        return encode_line(
            Archived(
                known.origin,
                known.event_id,
                known.path,
                record.arrival_ms,
                here.incarnation,
                here.shard,
                here.sequence,
                here.sub_sequence,
                record.partition_key,
                record.data,
            )
        )

    def settled(self, span: Span) -> None:
        """Copies are none of its business."""
