"""Kinesis Data Streams for DynamoDB: the changes of tables as records of a stream.

How it works: the records are those of DynamoDB Streams without a sequence number, and go by the same rules
(`core.changes`). The feed may tell a change twice and two changes of an item in the wrong order; what AWS names to tell
both is the creation time (DynamoDB Developer Guide, "Using Kinesis Data Streams to capture changes to DynamoDB"). So an
event's id is made of table, keys, that time and the images, and a repeat has the same id and bytes.

Why late changes are neither held nor dropped: nobody knows how late one may be, so waiting has no end, and without it
an event log would have lost an event. Nor are they marked: whether a change is late depends on what its reader saw
before, and the same record must give the same bytes whoever reads it. ``raw.at_us`` says when the item was changed; who
applies images to a state keeps that time with each item and passes over what is older. What the time can't tell apart
are changes of an item within one unit of the feed's precision: their order is unknown, and those with the same images
are one.
"""

from replicator.core.changes import Change, ChangeFormat, Images, encode_sorted


class StreamedChangeFormat(ChangeFormat):
    """Implements `core.formats.Format`. The table is the one that each record names: a stream may carry several."""

    def _table(self, change: Change) -> str:
        return change.table_name or self._rules.table

    def _ms(self, change: Change) -> int:
        return _us(change) // 1000

    def _place(self, change: Change, images: Images | None) -> bytes:
        """``eventID`` is no part of it: nothing promises that a repeat has the same, or that another region has not."""
        made = super()._images(change) if images is None else {name: images[name] for name in ("new", "old")}
        told = [change.event_name, change.dynamodb.keys, made]
        return encode_sorted([self._rules.here, self._table(change), _us(change), told])

    def _images(self, change: Change) -> Images:
        return {**super()._images(change), "at_us": _us(change)}


def _us(change: Change) -> int:
    """Milliseconds, unless the table's streaming destination is set to microseconds (API Reference,
    "EnableKinesisStreamingConfiguration")."""
    data = change.dynamodb
    unit_us = 1 if data.approximate_creation_date_time_precision == "MICROSECOND" else 1000
    return round(data.approximate_creation_date_time) * unit_us
