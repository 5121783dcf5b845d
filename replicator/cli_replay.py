"""``replicator replay`` and ``replicator bootstrap``: parse, print, exit codes; no logic."""

import argparse
import asyncio
import os
import secrets
from collections import Counter
from typing import TYPE_CHECKING

from replicator.cli_options import config_option, interruptible, positive, region_option, say, time_ms
from replicator.config import Config
from replicator.config_load import load
from replicator.core.model import LinkName, Region
from replicator.errors import ConfigError

if TYPE_CHECKING:  # they load the AWS clients
    from replicator.replay_command import Replayed
    from replicator.worker.replay import Chosen


READS_DEFAULT, READS_MAX = 1, 5
"""GetRecords a second that a shard of Kinesis serves to all its consumers."""


def add_bootstrap(command: argparse.ArgumentParser) -> None:
    command.add_argument("region", help="the region that gets the events, such as us-east-1")
    config_option(command)
    command.add_argument("--from", dest="senders", action="append", default=[], help="only this region's (repeatable)")
    _time_options(command)
    command.set_defaults(command=_bootstrap)


def _time_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--since", type=time_ms, required=True, help="first arrival: 2026-11-01T00:00:00Z")
    command.add_argument("--until", type=time_ms, required=True, help="end of the arrivals, itself excluded")
    command.add_argument("--rate", type=positive, default=1000, help="events a second at most (default 1000)")
    command.add_argument("--dry-run", action="store_true", help="say how many there are, and send nothing")


def add_replay(command: argparse.ArgumentParser) -> None:
    config_option(command)
    region_option(command)
    command.add_argument(
        "--from", dest="origin", choices=("lake", "stream"), default="lake", help="where events come from"
    )
    command.add_argument("--link", required=True, help="as in /status, such as orders:eu-west-1")
    _time_options(command)
    command.add_argument("--type", action="append", default=[], help="only events of this type (may be repeated)")
    command.add_argument("--force", action="store_true", help="send also what the peer has, and replay a second time")
    command.add_argument(
        "--reads", type=_reads, help="GetRecords a second of each shard, with --from stream (default 1)"
    )
    command.set_defaults(command=_replay)


def _reads(text: str) -> int:
    if (number := positive(text)) > READS_MAX:
        raise argparse.ArgumentTypeError(f"{text} is more than the {READS_MAX} that a shard serves to all together")
    return number


def _replay(args: argparse.Namespace) -> int:
    from replicator.worker.replay import Chosen  # noqa: PLC0415 - loads the AWS clients

    if args.origin == "lake" and args.reads is not None:
        raise ConfigError("--reads is for --from stream; a lake has no reads to share")
    config, region, link = load(args.config, os.environ), Region(args.region), LinkName(args.link)
    once_more = secrets.token_hex(8) if args.force else ""
    chosen = Chosen(*_times(args), tuple(sorted(set(args.type))), once_more)
    if args.dry_run:
        found = asyncio.run(_counted(args, config, region, link, chosen))
        _say_none(args, found.total())
        print(f"{found.total()} events of the {args.origin} would go to {link}, filters aside; born in:")
        print("\n".join(f"  {origin}: {number}" for origin, number in sorted(found.items())) or "  none")
        return 0
    with interruptible(*["--force begins anew each time"] if args.force else []):
        done = asyncio.run(_replayed(args, config, region, link, chosen))
    _say_none(args, done.chosen)
    print(f"{done.chosen} events of the {args.origin} over {link}: {done.account}")
    return 1 if done.poison else 0


def _say_none(args: argparse.Namespace, number: int) -> None:
    """What may be a slip of the pen is not to look like success."""
    if not number and args.type:
        say(
            f"this run found no event of type {' or '.join(args.type)} in the {args.origin} between --since and --until"
        )


async def _counted(
    args: argparse.Namespace, config: Config, region: Region, link: LinkName, chosen: "Chosen"
) -> Counter[Region]:
    from replicator import replay_command, replay_stream_command  # noqa: PLC0415 - loads the AWS clients

    if args.origin == "lake":
        return await replay_command.count(config, region, link, chosen)
    return await replay_stream_command.count_stream(
        config, region, link, chosen, say, reads_per_s=args.reads or READS_DEFAULT
    )


async def _replayed(
    args: argparse.Namespace, config: Config, region: Region, link: LinkName, chosen: "Chosen"
) -> "Replayed":
    from replicator import replay_command, replay_stream_command  # noqa: PLC0415 - loads the AWS clients
    from replicator.worker.replay_stream import Share  # noqa: PLC0415 - as above

    if args.origin == "lake":
        return await replay_command.replay(config, region, link, chosen, say, events_per_s=args.rate)
    share = Share(args.rate, args.reads or READS_DEFAULT)
    return await replay_stream_command.replay_stream(config, region, link, chosen, say, share)


def _times(args: argparse.Namespace) -> tuple[int, int]:
    if args.until <= args.since:
        raise ConfigError("--until is not later than --since")
    return args.since, args.until


def _bootstrap(args: argparse.Namespace) -> int:
    from replicator import bootstrap_command as command  # noqa: PLC0415 - loads the AWS clients
    from replicator.worker.replay import Chosen  # noqa: PLC0415 - as above

    config, chosen = load(args.config, os.environ), Chosen(*_times(args), (), "")
    ways, without = command.ways_into(config, Region(args.region), args.senders)
    for sender, link in without:
        say(f"{sender} over {link}: its source has no lake; nothing of it can be given")
    if args.dry_run:
        for (sender, link), number in asyncio.run(command.count_all(config, ways, chosen)).items():
            print(f"{sender} over {link}: {number} events of the lake would go, filters aside")
        return 0
    if shared := command.strangers(config, ways):
        say(
            f"one Redis for {', '.join(shared)}: what their workers have yet to send may be sent twice; give each "
            "region its own 'redis' in the configuration, or run this in each region with --from"
        )
    with interruptible():
        done = asyncio.run(command.bootstrap(config, ways, chosen, say, events_per_s=args.rate))
    for (sender, link), replayed in done.items():
        print(f"{sender} over {link}: {'was given before' if replayed is None else replayed.account}")
    return int(bool(without) or any(replayed and replayed.poison for replayed in done.values()))
