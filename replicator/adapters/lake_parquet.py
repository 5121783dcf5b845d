"""Objects of the lake as Parquet: a column for each coordinate and one for the event's bytes, by pyarrow.

pyarrow is an optional dependency of 29 MB in memory, so nothing imports it before it is needed.

One row group an object, which is small, and in the order of its shard. zstd, because an event of 1 KB is 281 bytes
with it and 528 with snappy, for 0.9 us more. Pages carry checksums: bytes that were damaged where decompression
notices nothing are an error, not another event. Sequence numbers of 129 digits fit no number of Parquet's, so they are
text.
"""

from collections.abc import Sequence
from typing import Any

from replicator.core.lake import INSTALL_PARQUET, Archived, LakeFormat, decode_line, encode_line
from replicator.core.model import Origin, Region, SequenceNumber, ShardId, SourceName
from replicator.errors import ConfigError

REPEATING = ["origin_region", "origin_source", "origin_incarnation", "origin_shard", "incarnation", "shard", "key"]
"""Columns worth a dictionary."""
COMPRESSION = "zstd"


def import_pyarrow() -> Any:
    """The module. The first call takes some 70 ms. Raises ConfigError where it is not installed."""
    try:
        import pyarrow.parquet  # noqa: PLC0415 - most workers can do without its memory
    except ImportError as exc:
        raise ConfigError(f"a lake of format parquet needs pyarrow: {INSTALL_PARQUET} ({exc})") from exc
    # Its own pool keeps 66 MB after objects of 8 MiB, the system's some 30.
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())
    return pyarrow


def _schema(pyarrow: Any) -> Any:
    """None of the columns is called like what names are partitioned by (origin, date, hour)."""
    text, number = pyarrow.string(), pyarrow.int64()
    columns = {
        "origin_region": text,
        "origin_source": text,
        "origin_incarnation": text,
        "origin_shard": text,
        "origin_seq": text,
        "origin_sub": number,
        "id": text,
        "path": pyarrow.list_(pyarrow.field("element", text, nullable=False)),
        "at": pyarrow.timestamp("ms", tz="UTC"),
        "incarnation": text,
        "shard": text,
        "seq": text,
        "sub": number,
        "key": text,
        "data": pyarrow.binary(),
    }
    return pyarrow.schema([pyarrow.field(name, kind, nullable=False) for name, kind in columns.items()])


def _row(event: Archived) -> tuple[object, ...]:
    """In the order of the columns."""
    born = event.origin
    return (
        born.region,
        born.source,
        born.incarnation,
        born.shard,
        str(born.sequence),
        born.sub_sequence,
        event.event_id,
        event.path,
        event.at_ms,
        event.incarnation,
        event.shard,
        str(event.sequence),
        event.sub_sequence,
        event.partition_key,
        event.data,
    )


def _event(row: Sequence[Any]) -> Archived:
    region, source, incarnation, shard, sequence, sub_sequence, *held = row
    event_id, path, at, here_incarnation, here_shard, here_sequence, here_sub, key, data = held
    return Archived(
        Origin(Region(region), SourceName(source), incarnation, ShardId(shard), _number(sequence), sub_sequence),
        event_id,
        tuple(path),
        at,
        here_incarnation,
        ShardId(here_shard),
        _number(here_sequence),
        here_sub,
        key,
        data,
    )


def _number(text: str) -> SequenceNumber:
    return SequenceNumber(int(text))


def _pack(lines: Sequence[bytes]) -> bytes:
    """The same events for the same lines; the same bytes by the same pyarrow. Raises ConfigError."""
    pyarrow = import_pyarrow()
    schema = _schema(pyarrow)
    rows = [_row(decode_line(line)) for line in lines]
    columns = [pyarrow.array(values, field.type) for values, field in zip(zip(*rows, strict=True), schema, strict=True)]
    packed = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(
        pyarrow.Table.from_arrays(columns, schema=schema),
        packed,
        row_group_size=len(rows),
        compression=COMPRESSION,
        use_dictionary=REPEATING,
        write_statistics=[name for name in schema.names if name != "data"],
        write_page_checksum=True,
        store_schema=False,
    )
    return bytes(packed.getvalue())


def _unpack(body: bytes) -> Sequence[bytes]:
    """Raises ValueError for what is no such Parquet, or not all of it, and where pyarrow is not installed."""
    try:
        pyarrow = import_pyarrow()
    except ConfigError as exc:
        raise ValueError(str(exc)) from exc
    try:
        columns = _columns(pyarrow, body)
    except (pyarrow.ArrowException, OSError, KeyError, ValueError) as exc:
        raise ValueError(f"not Parquet of a lake, or not all of it: {exc}") from exc
    return [encode_line(_event(row)) for row in zip(*columns, strict=True)]


def _columns(pyarrow: Any, body: bytes) -> list[list[Any]]:
    """Others than ours may be there, and ours in another order."""
    schema = _schema(pyarrow)
    # No thread of its own: whoever asks has one for this, and the processor has other links to serve.
    with pyarrow.parquet.ParquetFile(pyarrow.BufferReader(body), page_checksum_verification=True) as file:
        table = file.read(columns=schema.names, use_threads=False).select(schema.names).cast(schema)
    at = schema.get_field_index("at")
    table = table.set_column(at, "at", table.column(at).cast(pyarrow.int64()))
    return [column.to_pylist() for column in table.columns]


PARQUET = LakeFormat(".parquet", "application/vnd.apache.parquet", _pack, _unpack)
