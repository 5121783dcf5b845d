"""The composition root's part for sinks: from what the configuration says of one to what writes it in a peer."""

from replicator.adapters.dynamodb_sink import DynamoDbSink
from replicator.adapters.eventbridge_sink import EventBridgeSink
from replicator.adapters.kinesis_sink import Bodies, KinesisSink
from replicator.adapters.sqs_sink import SqsSink
from replicator.aws import dynamodb_api, eventbridge_api, sqs_api
from replicator.aws.http import HttpPool
from replicator.aws.kinesis_api import PREFIX, SERVICE, KinesisApi
from replicator.aws.kinesis_reading import Pace
from replicator.aws.session import AwsSession
from replicator.aws.transport import JSON_1_0, JSON_1_1, JsonApi
from replicator.config import Config, Endpoints
from replicator.config_sinks import (
    DynamoDbSinkConfig,
    EventBridgeSinkConfig,
    KinesisSinkConfig,
    S3SinkConfig,
    SinkConfig,
    SqsSinkConfig,
)
from replicator.core.bus_entries import BusEntries
from replicator.core.formats import Format
from replicator.core.model import Origin, Region, SourceName
from replicator.ports import Sink
from replicator.worker.prepare import sender_and_origin

BODIES_KEPT = 4
"""Of 1 MB or so each, for links that are a few requests apart."""


class Paces:
    """Of a worker: one for each stream in a peer, whichever links write there; its shards are the same for all."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._paces: dict[tuple[Region, str], Pace] = {}

    def of(self, peer: Region, stream: str) -> Pace:
        return self._paces.setdefault((peer, stream), Pace(self._interval_s))


class Writers:
    """The sinks of one source's links. They share bodies where there are several."""

    def __init__(
        self,
        config: Config,
        aws: AwsSession,
        http: HttpPool,
        paces: Paces,
        event_format: Format,
        links: int,
    ) -> None:
        self._config = config
        self._limits = config.limits
        self._aws = aws
        self._http = http
        self._paces = paces
        self._sender_and_origin = sender_and_origin(event_format)
        self._bodies = Bodies(BODIES_KEPT if links > 1 else 0)

    async def writer(self, sink: SinkConfig, peer: Region) -> Sink:
        match sink:
            case KinesisSinkConfig():
                return await self._stream(sink, peer)
            case SqsSinkConfig():
                return await self._queue(sink, peer)
            case EventBridgeSinkConfig():
                return await self._bus(sink, peer)
            case DynamoDbSinkConfig():
                return await self._table(sink, peer)
            case S3SinkConfig():
                raise AssertionError("a lake is opened by bootstrap_lake")

    async def _stream(self, sink: KinesisSinkConfig, peer: Region) -> KinesisSink:
        api = await self._api(SERVICE, peer, self._endpoints(peer).kinesis, PREFIX, JSON_1_1)
        stream = sink.writes_in(peer)
        return KinesisSink(
            KinesisApi(api, stream, self._limits.request_timeout_s),
            bodies=self._bodies,
            record_bytes_max=sink.record_bytes_max,
            read_back_pace=self._paces.of(peer, stream),
            read_back_max_s=self._limits.read_back_max_s,
        )

    async def _queue(self, sink: SqsSinkConfig, peer: Region) -> SqsSink:
        api = await self._api(sqs_api.SERVICE, peer, self._endpoints(peer).sqs, sqs_api.PREFIX, JSON_1_0)
        return SqsSink(
            sqs_api.SqsApi(api, sink.writes_in(peer), self._limits.request_timeout_s),
            origin_of=self.origin_of,
            message_bytes_max=sink.message_bytes_max,
        )

    async def _bus(self, sink: EventBridgeSinkConfig, peer: Region) -> EventBridgeSink:
        api = await self._api(
            eventbridge_api.SERVICE, peer, self._endpoints(peer).events, eventbridge_api.PREFIX, JSON_1_1
        )
        return EventBridgeSink(
            eventbridge_api.EventBridgeApi(api, sink.writes_in(peer), self._limits.request_timeout_s),
            entries=BusEntries(sink.source, sink.detail_type),
            request_bytes_max=sink.request_bytes_max,
        )

    async def _table(self, sink: DynamoDbSinkConfig, peer: Region) -> DynamoDbSink:
        api = await self._api(dynamodb_api.SERVICE, peer, self._endpoints(peer).dynamodb, dynamodb_api.PREFIX, JSON_1_0)
        return DynamoDbSink(
            dynamodb_api.DynamoDbApi(api, sink.writes_in(peer), self._limits.request_timeout_s),
            rules=sink.rules(peer),
            origin_of=self.origin_of,
            changes_of=None if sink.changes_of is None else SourceName(sink.changes_of),
        )

    def _endpoints(self, peer: Region) -> Endpoints:
        return self._config.regions[peer].endpoints

    async def _api(self, service: str, peer: Region, custom: str, prefix: str, content_type: str) -> JsonApi:
        url = await self._aws.endpoint(service, peer, custom)
        return JsonApi(
            self._http, self._aws, service=service, region=peer, url=url, prefix=prefix, content_type=content_type
        )

    def origin_of(self, data: bytes) -> Origin | None:
        seen = self._sender_and_origin(data)
        return None if seen is None else seen[1]
