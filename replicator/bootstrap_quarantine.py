"""The composition root's part for the quarantine."""

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

from replicator.adapters.quarantine_file import FileQuarantine
from replicator.adapters.quarantine_s3 import S3Quarantine
from replicator.adapters.quarantine_sqs import SqsQuarantine
from replicator.adapters.sqs_sink import SqsSink
from replicator.aws.http import HttpPool
from replicator.aws.session import AwsSession
from replicator.aws.sqs_api import PREFIX, SERVICE, SqsApi
from replicator.aws.transport import JSON_1_0, JsonApi
from replicator.config import Config
from replicator.config_sinks import S3SinkConfig
from replicator.core.model import LinkName, Region
from replicator.core.quarantine_document import Document
from replicator.errors import ConfigError

CONNECTIONS_MAX = 16
"""To the queue: of its own, so that poison waits for no link and no link for poison."""

OpenQuarantine: TypeAlias = FileQuarantine | S3Quarantine | SqsQuarantine


@asynccontextmanager
async def open_quarantine(config: Config, region: Region, aws: AwsSession) -> AsyncIterator[OpenQuarantine]:
    """The quarantine of one region, for as long as the block lasts."""
    async with _open_place(config, region, aws) as place:
        queue = config.quarantine.queue
        if queue is None:
            yield place
            return
        async with HttpPool(CONNECTIONS_MAX) as http:
            url = await aws.endpoint(SERVICE, region, config.regions[region].endpoints.sqs)
            calls = JsonApi(http, aws, service=SERVICE, region=region, url=url, prefix=PREFIX, content_type=JSON_1_0)
            api = SqsApi(calls, queue, config.limits.request_timeout_s)
            yield SqsQuarantine(api, SqsSink(api, origin_of=lambda _: None), place)


@asynccontextmanager
async def _open_place(config: Config, region: Region, aws: AwsSession) -> AsyncIterator[FileQuarantine | S3Quarantine]:
    bucket = _bucket(config, region)
    if bucket is None:
        yield FileQuarantine(_directory(config))
        return
    async with aws.client("s3", region, config.regions[region].endpoints.s3) as client:
        yield S3Quarantine(client, bucket, config.quarantine.s3_prefix)


def _bucket(config: Config, region: Region) -> str | None:
    chosen = config.quarantine
    if chosen.lake is None:
        return chosen.s3_bucket
    sink = config.sinks[chosen.lake]
    assert isinstance(sink, S3SinkConfig), "the configuration is checked"
    return sink.writes_in(region)


def _directory(config: Config) -> Path:
    return Path(config.quarantine.directory or "quarantine")


def check_quarantine(config: Config, region: Region) -> None:
    """Found out now, it costs a start; found out with the first poison event, it holds up a shard.

    Raises ConfigError when a directory can't be written.
    """
    if _bucket(config, region) is not None:
        return
    directory = _directory(config)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as exc:
        what = f"quarantine.directory {directory} can't be written: {exc}"
        raise ConfigError(f"{what}; name one that can, or a bucket (quarantine.s3_bucket)") from exc


async def bring_named(
    quarantine: OpenQuarantine, link: LinkName, is_chosen: Callable[[Document], bool], *, is_dry: bool
) -> int:
    """What a queue holds of the link is brought to where documents have names; how many there were.

    Everywhere else they have them. Raises StoreUnavailable.
    """
    if isinstance(quarantine, SqsQuarantine):
        return await quarantine.bring(link, is_chosen, is_dry=is_dry)
    return 0
