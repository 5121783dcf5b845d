"""The composition root's part for sinks: from what the configuration says of one to what writes it in a peer."""

import aiohttp

from replicator.adapters.kinesis_sink import Bodies, KinesisSink
from replicator.aws.kinesis_api import PREFIX, SERVICE, KinesisApi
from replicator.aws.session import AwsSession
from replicator.aws.transport import JsonApi
from replicator.config import Config
from replicator.config_sinks import KinesisSinkConfig, S3SinkConfig, SinkConfig, SqsSinkConfig
from replicator.core.formats import Format
from replicator.core.model import Region
from replicator.ports import Sink

BODIES_KEPT = 4
"""Of 1 MB or so each, for links that are a few requests apart."""


class Writers:
    """The sinks of one source's links. They share bodies where there are several."""

    def __init__(
        self, config: Config, aws: AwsSession, http: aiohttp.ClientSession, event_format: Format, links: int
    ) -> None:
        self._config = config
        self._limits = config.limits
        self._aws = aws
        self._http = http
        self._format = event_format
        self._bodies = Bodies(BODIES_KEPT if links > 1 else 0)

    async def writer(self, sink: SinkConfig, peer: Region) -> Sink:
        match sink:
            case KinesisSinkConfig():
                return await self._stream(sink, peer)
            case SqsSinkConfig():
                raise NotImplementedError
            case S3SinkConfig():
                raise AssertionError("a lake is opened by bootstrap_lake")

    async def _stream(self, sink: KinesisSinkConfig, peer: Region) -> KinesisSink:
        url = await self._aws.endpoint(SERVICE, peer, self._config.regions[peer].endpoints.kinesis)
        api = JsonApi(self._http, self._aws, service=SERVICE, region=peer, url=url, prefix=PREFIX)
        return KinesisSink(
            KinesisApi(api, sink.writes_in(peer), self._limits.request_timeout_s),
            bodies=self._bodies,
            record_bytes_max=sink.record_bytes_max,
            read_back_interval_s=self._limits.read_back_interval_s,
            read_back_max_s=self._limits.read_back_max_s,
        )
