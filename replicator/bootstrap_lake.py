"""The composition root's part for the event lake."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec.structs import replace

from replicator.adapters.lake_parquet import PARQUET, import_pyarrow
from replicator.adapters.lake_s3 import S3Lake, S3LakeReader
from replicator.aws.session import AwsSession
from replicator.config import Config
from replicator.config_sinks import S3SinkConfig
from replicator.core.lake import LAKE, NDJSON, LakeFormat
from replicator.core.model import Region, SourceName
from replicator.errors import ConfigError
from replicator.worker.lake_shard import HubLake
from replicator.worker.link import LinkSettings

OPEN_SPANS_MAX = 1000
"""Reads that wait together for an object: a few a second, for as long as they linger. Bytes are bounded apart."""
READ_S = 60.0
SECONDS_A_MB = 1.0
"""What an object is given to be stored beyond an ordinary request: 1 MB/s, before compression."""


async def _format_of(sink: S3SinkConfig) -> LakeFormat:
    """Ready, so that a worker which can't write it never starts. Raises ConfigError."""
    match sink.format:
        case "ndjson":
            return NDJSON
        case "parquet":
            await asyncio.to_thread(import_pyarrow)
            return PARQUET


@asynccontextmanager
async def open_lake(
    config: Config, region: Region, sink: S3SinkConfig, source: SourceName, aws: AwsSession
) -> AsyncIterator[S3Lake]:
    """The lake of one hub of one region, for as long as the block lasts. Raises ConfigError."""
    lake_format = await _format_of(sink)
    timeout_s = config.limits.request_timeout_s + sink.object_bytes_max / 1e6 * SECONDS_A_MB
    async with aws.client("s3", region, config.regions[region].endpoints.s3, timeout_s=timeout_s) as client:
        yield S3Lake(client, sink.writes_in(region), sink.prefix, source, sink.object_bytes_max, lake_format)


@asynccontextmanager
async def open_hub_lake(
    config: Config, region: Region, source: SourceName, name: str, aws: AwsSession
) -> AsyncIterator[HubLake]:
    """The lake ``name``, for a worker that reads on in it where the stream of ``source`` has forgotten."""
    sink = config.sinks[name]
    assert isinstance(sink, S3SinkConfig), "the configuration was checked"
    async with aws.client("s3", region, config.regions[region].endpoints.s3, timeout_s=READ_S) as client:
        reader = S3LakeReader(client, sink.writes_in(region), sink.prefix, [PARQUET])
        yield HubLake(reader, source, config.region_names)


@asynccontextmanager
async def open_lake_reader(config: Config, region: Region, source: SourceName) -> AsyncIterator[S3LakeReader]:
    """The same for reading. Raises ConfigError where there is none."""
    sink = config.sink(source, LAKE)
    if not isinstance(sink, S3SinkConfig):
        raise ConfigError(f"sources.{source} has no lake to replay from")
    endpoint = config.regions[region].endpoints.s3
    async with AwsSession() as aws, aws.client("s3", region, endpoint, timeout_s=READ_S) as client:
        yield S3LakeReader(client, sink.writes_in(region), sink.prefix, [PARQUET])


def lake_settings(settings: LinkSettings, sink: S3SinkConfig) -> LinkSettings:
    """What a link into the lake has of its own; the rest is as given."""
    return replace(
        settings,
        ordering="shard",
        in_flight_max=1,
        linger_s=sink.linger_s,
        is_lake=True,
        open_spans_max=OPEN_SPANS_MAX,
        # What waits for a full object, and as much that follows.
        open_bytes_max=2 * sink.object_bytes_max,
    )
