"""The regions of a run: one endpoint process each, plain and over TLS, with nothing of AWS's rates in the way."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from replicator.dev.certificate import Certificate, make_certificate
from replicator.dev.launch import Ready, aws_ready, start_aws
from replicator.dev.processes import Child

NAMES = ("us-east-1", "eu-west-1", "ap-southeast-2", "sa-east-1")
HOME, *PEERS = NAMES
READY_S = 120.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``url`` is plain; ``aws`` serves all but Kinesis, in the home region's process only."""

    region: str
    child: Child
    url: str
    tls_url: str
    aws: str | None


class Regions:
    """All endpoints of a run, shared by its cases: each contender has streams of its own. Use as ``async with``."""

    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir
        self.certificate: Certificate = make_certificate(workdir)
        self.endpoints: dict[str, Endpoint] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            children = {name: self._started(name) for name in NAMES}
            for name, child in children.items():
                self.endpoints[name] = _endpoint(child, await child.ready(aws_ready, READY_S))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    def url(self, region: str, *, tls: bool = False) -> str:
        endpoint = self.endpoints[region]
        return endpoint.tls_url if tls else endpoint.url

    @property
    def aws(self) -> str:
        """Where leases are kept, and what every region has beside Kinesis: requests are told apart by their region."""
        url = self.endpoints[HOME].aws
        assert url is not None
        return url

    def _started(self, name: str) -> Child:
        options = ["--limits", "off", "--certificate", str(self.certificate.file), "--key"]
        options.append(str(self.certificate.key_file))
        if name != HOME:
            options.append("--kinesis-only")
        child = start_aws(name, self.workdir / f"aws-{name}.log", *options)
        self._stack.callback(child.kill)
        return child


def _endpoint(child: Child, ready: Ready) -> Endpoint:
    assert isinstance(ready.kinesis_tls, str)
    aws = ready.aws if isinstance(ready.aws, str) else None
    return Endpoint(ready.region, child, ready.kinesis, ready.kinesis_tls, aws)
