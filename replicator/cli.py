"""The command line: parse, print, exit codes; no logic.

Exit codes: 0 done, 1 the answer is no (a problem found, a verdict not clean), 2 wrong usage, 130 interrupted.
"""

import argparse
import asyncio
import gc
import json
import os
import sys
from collections.abc import Sequence

from rich.console import Console

from replicator import __version__
from replicator.capacity import capacity_document, print_capacity
from replicator.cli_options import config_option, interruptible, positive, region_option, say
from replicator.cli_replay import add_bootstrap, add_replay
from replicator.config import Config
from replicator.config_load import check, load, warnings
from replicator.config_show import effective
from replicator.core.capacity import Figures
from replicator.core.model import LinkName, Region
from replicator.errors import ConfigError, first_of
from replicator.plan import plan_document, print_plan
from replicator.worker.held_keys import REFRESH_S

PLAN_COLUMNS = 160


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        return _done(args)
    except ConfigError as exc:
        return _refused(exc)
    except ExceptionGroup as exc:
        if (refused := first_of(ConfigError, exc)) is None:
            raise
        return _refused(refused)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _refused(exc: ConfigError) -> int:
    print(exc, file=sys.stderr)
    return 1


def _done(args: argparse.Namespace) -> int:
    code = int(args.command(args))
    sys.stdout.flush()  # Here, where a reader that is gone can still be met.
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="replicator", description="Keeps event hubs in several AWS regions active-active."
    )
    parser.add_argument("--version", action="version", version=f"replicator {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_config(commands.add_parser("config", help="check, describe or show a configuration"))

    plan = commands.add_parser("plan", help="print the routes and prove that nothing loops and nothing is missed")
    config_option(plan)
    plan.add_argument("--json", action="store_true", help="as JSON")
    plan.set_defaults(command=_plan)

    _add_capacity(commands.add_parser("capacity", help="what a load needs in each region, what bends first, the cost"))

    run = commands.add_parser("run", help="run one worker of one region")
    config_option(run)
    region_option(run)
    run.set_defaults(command=_run)

    _add_filter(commands.add_parser("filter", help="what a link would do with the events its hub took lately"))
    add_replay(
        commands.add_parser("replay", help="send what lake or stream keep of a time over a link again, in order")
    )
    add_bootstrap(commands.add_parser("bootstrap", help="give a region what other regions' lakes keep of a time"))
    _add_quarantine(commands.add_parser("quarantine", help="what was put away and why, and keys held back behind it"))
    _add_demo(commands.add_parser("demo", help="three regions on this machine, one of which is lost and comes back"))
    return parser


def _add_config(config: argparse.ArgumentParser) -> None:
    commands = config.add_subparsers(required=True, metavar="command")
    check_command = commands.add_parser("check", help="print every problem with its line and what to write instead")
    check_command.add_argument("file", help="a file, or env:NAME for an environment variable that holds it")
    check_command.set_defaults(command=_check)
    commands.add_parser("schema", help="print the JSON Schema").set_defaults(command=_schema)
    show = commands.add_parser("show", help="print what holds for one region, secrets masked")
    config_option(show)
    region_option(show)
    show.set_defaults(command=_show)


def _add_filter(judge: argparse.ArgumentParser) -> None:
    config_option(judge)
    region_option(judge)
    judge.add_argument("--link", required=True, help="as in /status, such as orders:eu-west-1")
    judge.add_argument("--since", type=positive, default=600, help="so many seconds ago (default 600)")
    judge.add_argument("--examples", type=positive, default=2, help="so many events of each fate (default 2)")
    judge.add_argument("--json", action="store_true", help="as JSON, with the examples whole")
    judge.set_defaults(command=_filter)


def _add_quarantine(quarantine: argparse.ArgumentParser) -> None:
    commands = quarantine.add_subparsers(required=True, metavar="command")
    listed = commands.add_parser("list", help="print what is in quarantine, newest first")
    show = commands.add_parser("show", help="print one document with its bytes")
    held = commands.add_parser("held", help="print the keys that are held, by link")
    release = commands.add_parser("release", help="let the events of a key through again")
    redrive = commands.add_parser("redrive", help="send what is in quarantine over its link again, in order")
    for command in (listed, show, held, release, redrive):
        config_option(command)
        region_option(command)
    release.add_argument("--link", required=True, help="as in /status, such as orders:eu-west-1")
    release.add_argument("--key", required=True, help="the partition key")
    listed.add_argument("--link", help="as in /status; all by default")
    listed.add_argument("--newest", type=positive, default=100, help="so many of each link (default 100)")
    listed.add_argument("--json", action="store_true", help="one JSON document a line, with the bytes in base64")
    listed.set_defaults(command=_listed)
    show.add_argument("id", help="as list prints it, or how it begins")
    show.add_argument("--link", help="as in /status; needed where several links put the event away")
    show.add_argument("--raw", action="store_true", help="only the event's bytes, as they were read")
    show.set_defaults(command=_show_document)
    held.set_defaults(command=_held)
    redrive.add_argument("--link", required=True, help="as in /status, such as orders:eu-west-1")
    redrive.add_argument("--id", default="", help="only the document whose id begins so")
    redrive.add_argument("--reason", help="only those that were put away for this reason")
    redrive.add_argument("--key", help="only those of this partition key")
    redrive.add_argument("--dry-run", action="store_true", help="say how many there are, and send nothing")
    redrive.set_defaults(command=_redrive)
    release.set_defaults(command=_release)


def _add_capacity(capacity: argparse.ArgumentParser) -> None:
    config_option(capacity)
    capacity.add_argument(
        "--rate", type=float, required=True, help="events a second that producers write to each source in each region"
    )
    capacity.add_argument("--size", type=int, required=True, help="bytes of an event")
    capacity.add_argument("--shards", type=int, help="of each stream (default: as many as the load needs)")
    capacity.add_argument("--cpu-us", type=float, help="CPU an event and link takes (default: what was measured)")
    capacity.add_argument("--json", action="store_true", help="as JSON, with all figures and prices")
    capacity.set_defaults(command=_capacity)


def _add_demo(demo: argparse.ArgumentParser) -> None:
    demo.add_argument(
        "--seconds",
        type=positive,
        default=40,
        help="time of writing (default 40); start, catch-up and audit follow",
    )
    demo.add_argument("--events", type=positive, default=20_000, help="how many events are written (default 20000)")
    demo.add_argument("--topology", choices=("mesh", "hub", "chain"), default="mesh")
    demo.add_argument("--no-outage", action="store_true", help="kill no region")
    demo.add_argument("--crash-workers", action="store_true", help="kill -9 workers on the way")
    demo.add_argument("--flush-redis", action="store_true", help="flush a region's idempotency state on the way")
    demo.add_argument("--aggregate", action="store_true", help="links pack events of a key (aggregate: kpl)")
    demo.add_argument("--output", choices=("text", "json"), default="text")
    demo.add_argument("--workdir", help="where logs and configuration go (default: a temporary folder)")
    demo.add_argument("--keep", action="store_true", help="keep the working folder")
    demo.set_defaults(command=_demo)


def _check(args: argparse.Namespace) -> int:
    config, problems = check(args.file, os.environ)
    for problem in problems:
        print(f"{args.file}:{problem}")
    for place, message in warnings(args.file, os.environ, config):
        print(f"{args.file}:{place.line}:{place.column}: warning: {message}")
    if config is None:
        return 1
    print(f"{args.file}: {len(config.regions)} regions, {len(config.sources)} sources: no problem found")
    return 0


def _schema(_: argparse.Namespace) -> int:
    print(json.dumps(Config.model_json_schema(), indent=2))
    return 0


def _show(args: argparse.Namespace) -> int:
    print(effective(load(args.config, os.environ), args.region), end="")
    return 0


def _plan(args: argparse.Namespace) -> int:
    config = load(args.config, os.environ)
    if args.json:
        print(json.dumps(plan_document(config), indent=2))
    else:
        # Without a terminal rich takes 80 columns, which cuts region names apart.
        print_plan(config, Console(width=None if sys.stdout.isatty() else PLAN_COLUMNS))
    return 0


def _capacity(args: argparse.Namespace) -> int:
    if args.rate <= 0 or args.size <= 0 or (args.shards is not None and args.shards <= 0):
        raise ConfigError("--rate, --size and --shards must be above 0")
    config = load(args.config, os.environ)
    figures = Figures() if args.cpu_us is None else Figures(first_link_us=args.cpu_us)
    given = {"rate": args.rate, "size": args.size, "shards": args.shards, "figures": figures}
    if args.json:
        print(json.dumps(capacity_document(config, **given), indent=2))
    else:
        print_capacity(config, Console(width=None if sys.stdout.isatty() else PLAN_COLUMNS), **given)
    return 0


def _run(args: argparse.Namespace) -> int:
    gc.disable()  # Until `tune_process`: what the start makes stays; collections would take a seventh of the start.
    from replicator.bootstrap import run_worker  # noqa: PLC0415 - loads the AWS clients, which other commands don't need

    config = load(args.config, os.environ)
    asyncio.run(run_worker(config, Region(args.region)))
    return 0


def _filter(args: argparse.Namespace) -> int:
    from replicator.filter_command import judged, judged_document, print_judged  # noqa: PLC0415 - loads the AWS clients

    config = load(args.config, os.environ)
    trial = judged(config, Region(args.region), args.link, since_s=args.since, examples_max=args.examples)
    found = asyncio.run(trial)
    if args.json:
        print(json.dumps(judged_document(found), indent=2))
    else:
        print_judged(found, Console(width=None if sys.stdout.isatty() else PLAN_COLUMNS))
    return 0


def _listed(args: argparse.Namespace) -> int:
    from replicator.quarantine_commands import kept  # noqa: PLC0415 - loads the AWS clients
    from replicator.quarantine_view import print_documents, print_json  # noqa: PLC0415 - only here

    link = None if args.link is None else LinkName(args.link)
    found = asyncio.run(kept(load(args.config, os.environ), Region(args.region), link, args.newest))
    if args.json:
        print_json(found)
    else:
        print_documents(found, Console(width=None if sys.stdout.isatty() else PLAN_COLUMNS))
    return 0


def _show_document(args: argparse.Namespace) -> int:
    from replicator.quarantine_commands import find  # noqa: PLC0415 - loads the AWS clients
    from replicator.quarantine_view import document_text  # noqa: PLC0415 - only here

    link = None if args.link is None else LinkName(args.link)
    document = asyncio.run(find(load(args.config, os.environ), Region(args.region), link, args.id))
    if args.raw:
        sys.stdout.buffer.write(document.data)
    else:
        print(document_text(document))
    return 0


def _held(args: argparse.Namespace) -> int:
    from replicator.quarantine_commands import held  # noqa: PLC0415 - loads the AWS clients

    found = asyncio.run(held(load(args.config, os.environ), Region(args.region)))
    for link, keys in found.items():
        for key in keys:
            print(f"{link}\t{key}")
    if not any(found.values()):
        print(f"no held keys on {', '.join(found)}", file=sys.stderr)
    return 0


def _redrive(args: argparse.Namespace) -> int:
    from replicator.redrive_command import Choice, redrive  # noqa: PLC0415 - loads the AWS clients

    config = load(args.config, os.environ)
    choice = Choice(args.id, args.reason, args.key)
    link = LinkName(args.link)

    with interruptible():
        done = asyncio.run(redrive(config, Region(args.region), link, choice, say, is_dry=args.dry_run))
    if not done.chosen:
        print(f"0 of {done.looked_at} documents of {link} match")
        return 1 if args.id else 0
    if args.dry_run:
        print(f"{done.chosen} documents of {link} would be redriven")
        return 0
    stays = ", ".join(f"{count} {reason}" for reason, count in done.stays.items())
    print(f"{done.chosen} documents of {link}: {done.removed} done and removed, {stays or 'none'} still poison")
    return 1 if done.stays else 0


def _release(args: argparse.Namespace) -> int:
    from replicator.quarantine_commands import release  # noqa: PLC0415 - loads the AWS clients

    config = load(args.config, os.environ)
    if asyncio.run(release(config, Region(args.region), LinkName(args.link), args.key)):
        print(f"{args.key}: released; workers let its events through within {REFRESH_S:g} s")
        return 0
    print(f"{args.key}: is not held on {args.link}", file=sys.stderr)
    return 1


def _demo(args: argparse.Namespace) -> int:
    try:
        from replicator.dev.demo import main as demo  # noqa: PLC0415 - needs the `dev` extra
    except ModuleNotFoundError as exc:
        raise ConfigError(f"the demo needs more packages: pip install 'region-replicator[dev]' ({exc})") from exc
    return demo(args)
