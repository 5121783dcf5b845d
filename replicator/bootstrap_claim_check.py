"""The composition root's part for claim checks: a sink whose larger events leave their bodies in S3."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from replicator.adapters.bodies_s3 import S3Bodies
from replicator.aws.session import AwsSession
from replicator.config import Config
from replicator.config_sinks import EventBridgeSinkConfig, SinkConfig
from replicator.core.bus_entries import ADDED_BYTES_MAX
from replicator.core.claim_check import Cloakroom
from replicator.core.egress import EgressRules
from replicator.core.model import LinkName, Origin, Region
from replicator.ports import Sink, Telemetry
from replicator.worker.claim_check import EVENT_BYTES_MAX, CheckingSink

SECONDS_A_MB = 1.0
"""What a body is given to be stored beyond an ordinary request."""


@asynccontextmanager
async def claim_checked(
    config: Config,
    sink: SinkConfig,
    writer: Sink,
    link: LinkName,
    peer: Region,
    *,
    aws: AwsSession,
    origin_of: Callable[[bytes], Origin | None],
    rules: EgressRules,
    telemetry: Telemetry,
) -> AsyncIterator[Sink]:
    """``writer``, for as long as the block lasts with claim checks where ``sink`` has them."""
    chosen = getattr(sink, "claim_check", None)
    if chosen is None:
        yield writer
        return
    timeout_s = config.limits.request_timeout_s + EVENT_BYTES_MAX / 1e6 * SECONDS_A_MB
    async with aws.client("s3", peer, config.regions[peer].endpoints.s3, timeout_s=timeout_s) as client:
        bucket = chosen.writes_in(peer)
        yield CheckingSink(
            writer,
            S3Bodies(client, bucket),
            Cloakroom(peer, bucket, chosen.prefix, rules),
            link=link,
            origin_of=origin_of,
            telemetry=telemetry,
            spare_bytes=ADDED_BYTES_MAX if isinstance(sink, EventBridgeSinkConfig) else 0,
        )
