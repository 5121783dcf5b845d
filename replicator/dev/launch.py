"""Starting a region's AWS process from another one, and reading its ready line."""

import sys
from pathlib import Path

import msgspec
from msgspec import UNSET, Struct, UnsetType

from replicator.dev.processes import Child


class Ready(Struct, frozen=True):
    """The line an AWS process prints when it serves.

    ``aws`` is missing with ``--kinesis-only``, ``kinesis_tls`` without a certificate.
    """

    ready: bool
    region: str
    kinesis: str
    aws: str | UnsetType = UNSET
    kinesis_tls: str | UnsetType = UNSET


def start_aws(region: str, log: Path, *options: str) -> Child:
    """Start `replicator.dev.aws` with these options; await `aws_ready` of it. It ends with this process."""
    module = [sys.executable, "-m", "replicator.dev.aws"]
    return Child(f"AWS of {region}", [*module, "--region", region, "--exit-with-stdin", *options], log)


def aws_ready(line: str) -> Ready | None:
    """What the ready line says, for `Child.ready` and `Child.wait_ready`; None for any other line."""
    return msgspec.json.decode(line, type=Ready) if line.startswith('{"ready":true') else None
