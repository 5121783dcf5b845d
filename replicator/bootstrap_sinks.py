"""The composition root's part for sinks: from what the configuration says of one to what writes it in a peer."""

import aiohttp

from replicator.adapters.kinesis_sink import Bodies, KinesisSink
from replicator.aws.kinesis_api import PREFIX, SERVICE, KinesisApi
from replicator.aws.kinesis_reading import Pace
from replicator.aws.session import AwsSession
from replicator.aws.transport import JsonApi
from replicator.config import Config
from replicator.config_sinks import KinesisSinkConfig, SinkConfig, SqsSinkConfig
from replicator.core.formats import Format
from replicator.core.model import Region
from replicator.ports import Sink

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
        http: aiohttp.ClientSession,
        paces: Paces,
        event_format: Format,
        links: int,
    ) -> None:
        self._config = config
        self._limits = config.limits
        self._aws = aws
        self._http = http
        self._paces = paces
        self._format = event_format
        self._bodies = Bodies(BODIES_KEPT if links > 1 else 0)

    async def writer(self, sink: SinkConfig, peer: Region) -> Sink:
        match sink:
            case KinesisSinkConfig():
                return await self._stream(sink, peer)
            case SqsSinkConfig():
                raise NotImplementedError

    async def _stream(self, sink: KinesisSinkConfig, peer: Region) -> KinesisSink:
        url = await self._aws.endpoint(SERVICE, peer, self._config.regions[peer].endpoints.kinesis)
        api = JsonApi(self._http, self._aws, service=SERVICE, region=peer, url=url, prefix=PREFIX)
        stream = sink.writes_in(peer)
        return KinesisSink(
            KinesisApi(api, stream, self._limits.request_timeout_s),
            bodies=self._bodies,
            record_bytes_max=sink.record_bytes_max,
            read_back_pace=self._paces.of(peer, stream),
            read_back_max_s=self._limits.read_back_max_s,
        )
