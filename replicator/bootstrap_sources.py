"""The composition root's part for sources: from what the configuration says of one to what reads it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct

from replicator.adapters.dynamodb_streams_source import DynamoDbStreamsSource
from replicator.adapters.kinesis_source import KinesisSource
from replicator.adapters.sqs_source import SqsSource
from replicator.aws import sqs_api
from replicator.aws.dynamodb_streams_api import SERVICE as DYNAMODB
from replicator.aws.dynamodb_streams_api import STREAMS_ENDPOINT, STREAMS_PREFIX, TABLE_PREFIX, DynamoDbStreamsApi
from replicator.aws.http import HttpPool
from replicator.aws.kinesis_api import PREFIX, SERVICE, KinesisApi
from replicator.aws.session import AwsSession
from replicator.aws.transport import JSON_1_0, JSON_1_1, JsonApi
from replicator.config import Config
from replicator.config_sources import (
    CdcSourceConfig,
    DynamoDbSourceConfig,
    KinesisSourceConfig,
    SourceConfig,
    SqsSourceConfig,
)
from replicator.core.cdc_debezium import DebeziumFormat
from replicator.core.cdc_dms import DmsFormat
from replicator.core.cdc_dynamodb import StreamedChangeFormat
from replicator.core.changes import ChangeFormat
from replicator.core.formats import Format, make_format
from replicator.core.messages import MessageFormat, text_at
from replicator.core.model import Region, SourceName
from replicator.errors import ConfigError
from replicator.ports import Queue, Source

CONNECTIONS_MAX = 16
"""Of a command that reads a hub."""


class Reader(Struct, frozen=True):
    """``queue``: the same source, where it is one."""

    source: Source
    event_format: Format
    queue: Queue | None = None


@asynccontextmanager
async def open_hub(config: Config, region: Region, source: SourceName) -> AsyncIterator[Reader]:
    """What reads a hub of one region, for as long as the block lasts. Raises ConfigError where the source is none."""
    chosen = config.sources[source]
    if not isinstance(chosen, KinesisSourceConfig):
        hubs = [name for name, each in config.sources.items() if isinstance(each, KinesisSourceConfig)]
        raise ConfigError(f"sources.{source} is of kind {chosen.kind}: only hubs can be read again ({', '.join(hubs)})")
    async with AwsSession() as aws, HttpPool(CONNECTIONS_MAX) as http:
        yield await Readers(config, region, aws, http).reader(chosen)


class Readers:
    """Of one region."""

    def __init__(self, config: Config, region: Region, aws: AwsSession, http: HttpPool) -> None:
        self._region = region
        self._endpoints = config.regions[region].endpoints
        self._timeout_s = config.limits.request_timeout_s
        self._aws = aws
        self._http = http

    async def reader(self, source: SourceConfig) -> Reader:
        name = source.reads_in(self._region)
        match source:
            case KinesisSourceConfig():
                event_format = make_format(source.format, event_id_field=source.event_id_field, opaque=source.opaque)
                return await self._stream(event_format, name)
            case CdcSourceConfig():
                return await self._stream(self._changes(source), name)
            case DynamoDbSourceConfig():
                return await self._table(source, name)
            case SqsSourceConfig():
                return await self._queue(source, name)

    async def _stream(self, event_format: Format, name: str) -> Reader:
        api = await self._api(SERVICE, SERVICE, self._endpoints.kinesis, PREFIX, JSON_1_1)
        return Reader(KinesisSource(KinesisApi(api, name, self._timeout_s)), event_format)

    def _changes(self, source: CdcSourceConfig) -> Format:
        match source.format:
            case "dynamodb":
                return StreamedChangeFormat(source.rules(self._region))
            case "dms":
                return DmsFormat(self._region, before_field=source.before_field, control=source.control)
            case "debezium":
                return DebeziumFormat(self._region)

    async def _table(self, source: DynamoDbSourceConfig, name: str) -> Reader:
        tables = await self._api(DYNAMODB, DYNAMODB, self._endpoints.dynamodb, TABLE_PREFIX, JSON_1_0)
        streams = await self._api(
            DYNAMODB, STREAMS_ENDPOINT, self._endpoints.dynamodb_streams, STREAMS_PREFIX, JSON_1_0
        )
        api = DynamoDbStreamsApi(tables, streams, name, self._timeout_s)
        is_global_ok, needs_images = source.written_here != "all", source.mode != "raw"
        adapter = DynamoDbStreamsSource(api, is_global_ok=is_global_ok, needs_images=needs_images)
        return Reader(adapter, ChangeFormat(source.rules(self._region)))

    async def _queue(self, source: SqsSourceConfig, name: str) -> Reader:
        api = await self._api(sqs_api.SERVICE, sqs_api.SERVICE, self._endpoints.sqs, sqs_api.PREFIX, JSON_1_0)
        path = source.key_path
        queue = SqsSource(
            sqs_api.SqsApi(api, name, self._timeout_s),
            visibility_s=source.visibility_s,
            wait_s=source.wait_s,
            key_of=lambda body: text_at(body, path) if path else None,
        )
        return Reader(queue, MessageFormat(source.envelope, source.id_path), queue)

    async def _api(self, service: str, endpoint: str, custom: str, prefix: str, content_type: str) -> JsonApi:
        """``service`` is what requests are signed for, ``endpoint`` what botocore calls the host's service."""
        url = await self._aws.endpoint(endpoint, self._region, custom)
        return JsonApi(
            self._http,
            self._aws,
            service=service,
            region=self._region,
            url=url,
            prefix=prefix,
            content_type=content_type,
        )
