"""The AWS of one region as one process: our Kinesis endpoint, and moto behind one lock for everything else.

    python -m replicator.dev.aws --region us-east-1

prints one line of JSON when both serve: ``{"ready": true, "region": ..., "kinesis": URL, "aws": URL}``. It
ends on SIGTERM and SIGINT, and with ``--exit-with-stdin`` when its standard input closes, so that a killed
parent leaves nothing behind.
"""

import argparse
import asyncio
import gc
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
from msgspec import UNSET

from replicator.dev.certificate import Certificate
from replicator.dev.kinesis_endpoint import KinesisEndpoint
from replicator.dev.kinesis_limits import Limits, parse_limits
from replicator.dev.launch import Ready


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    asyncio.run(_serve(args))
    return 0


async def _serve(args: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    _stop_on_signals(stopping)
    if args.exit_with_stdin:
        await _stop_with_stdin(stopping)
    endpoint = KinesisEndpoint(
        args.region,
        limits=_limits(args),
        key_id=args.key_id,
        secret=args.secret,
        verify_signatures=not args.no_verify,
    )
    kinesis = await endpoint.start(args.kinesis_port, args.host)
    kinesis_tls = await _start_tls(endpoint, args) if args.certificate else UNSET
    aws = UNSET if args.kinesis_only else await _start_moto(args.host, args.aws_port)
    sys.stdout.write(msgspec.json.encode(Ready(True, args.region, kinesis, aws, kinesis_tls)).decode() + "\n")
    sys.stdout.flush()
    await stopping.wait()
    await endpoint.stop()


async def _start_tls(endpoint: KinesisEndpoint, args: argparse.Namespace) -> str:
    return await endpoint.start_tls(Certificate(args.certificate, args.key).server_context(), args.host)


async def _start_moto(host: str, port: int) -> str:
    """Import moto (seconds) and serve it from threads of its own, which end with the process."""
    gc.disable()
    from replicator.dev.moto_server import start_moto  # noqa: PLC0415 - seconds

    url = await asyncio.to_thread(start_moto, host, port)
    gc.freeze()  # All that stays, which no collection needs to go through.
    gc.enable()
    return url


def _stop_on_signals(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)


async def _stop_with_stdin(stopping: asyncio.Event) -> None:
    class Stdin(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - given by Protocol
            stopping.set()

    await asyncio.get_running_loop().connect_read_pipe(Stdin, sys.stdin)


def _limits(args: argparse.Namespace) -> Limits:
    limits: Limits = args.limits
    return replace(limits, iterator_ttl_ms=round(args.iterator_ttl_s * 1000), settle_ms=args.settle_ms)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m replicator.dev.aws", description=__doc__)
    parser.add_argument("--region", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--kinesis-port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--aws-port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--kinesis-only", action="store_true", help="without moto; starts at once")
    parser.add_argument(
        "--limits", type=parse_limits, default=Limits(), help="aws (default), off, or a factor for the rates"
    )
    parser.add_argument("--iterator-ttl-s", type=float, default=300.0)
    parser.add_argument("--settle-ms", type=int, default=0, help="how long a stream stays CREATING or UPDATING")
    parser.add_argument("--key-id", default="test")
    parser.add_argument("--secret", default="test")
    parser.add_argument("--no-verify", action="store_true", help="check a signature's date only, not the signature")
    parser.add_argument("--certificate", type=Path, help="PEM file; Kinesis is then served over TLS as well")
    parser.add_argument("--key", type=Path, help="PEM file with the certificate's key")
    parser.add_argument("--exit-with-stdin", action="store_true", help="end when standard input closes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
