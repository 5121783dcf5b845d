"""What `replicator plan` shows: the route matrix, the links, and the proof that came with compiling them."""

from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from replicator.config import Config, LinkDefaults
from replicator.config_streams import prove_streams
from replicator.config_tables import prove_tables
from replicator.core.kpl import PACKED_BYTES_MAX, PACKED_EVENTS_MAX
from replicator.core.lake import LAKE
from replicator.core.model import Region
from replicator.core.topology import Generation, Topologies


def plan_document(config: Config) -> dict[str, object]:
    """The plan as plain data. Raises ConfigError (TopologyError) when it can't be proven."""
    topologies = config.topologies()
    return {
        "newest": topologies.newest,
        "generations": {number: _routes(topologies.generation(number)) for number in topologies.numbers},
        "links": [_link(config, source, here, peer) for source, here, peer in _links(config)],
        "proof": _proofs(config, topologies),
    }


def print_plan(config: Config, console: Console) -> None:
    """The same for people. Raises ConfigError (TopologyError)."""
    topologies = config.topologies()
    for number in topologies.numbers:
        generation = topologies.generation(number)
        console.print(_matrix(generation, f"Routes, generation {number}{_since(generation)}"))
    console.print(_link_table(config))
    console.print("A lane (the events of one key of one shard) moves one record per round trip, in order.")
    if any(_link(config, *link)["aggregate"] == "kpl" for link in _links(config)):
        size = f"{PACKED_EVENTS_MAX} events or {PACKED_BYTES_MAX // 1024} KiB"
        console.print(f"packed: the record holds what waits in the lane, up to {size}; else it is one event.")
    for proof in _proofs(config, topologies):
        console.print(proof)


def _since(generation: Generation) -> str:
    starts = datetime.fromtimestamp(generation.starts_ms / 1000, UTC).isoformat(timespec="seconds")
    return f", for events from {starts} on" if generation.starts_ms else ""


def _routes(generation: Generation) -> dict[str, dict[str, list[str]]]:
    return {
        origin: {region: list(path) for region, path in paths.items() if region != origin}
        for origin, paths in generation.paths.items()
    }


def _matrix(generation: Generation, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("events from")
    for region in generation.regions:
        table.add_column(f"reach {region}", overflow="fold")
    for origin in generation.regions:
        table.add_row(origin, *[_cell(generation, origin, region) for region in generation.regions])
    return table


def _cell(generation: Generation, origin: Region, region: Region) -> str:
    path = generation.paths[origin].get(region, ())
    if region == origin:
        return "-"
    return "directly" if len(path) == 2 else "via " + ", ".join(path[1:-1])


def _links(config: Config) -> list[tuple[str, Region, Region]]:
    return [(source, here, peer) for here in config.region_names for source, peer in config.links_of(here).values()]


def _link(config: Config, source: str, here: Region, peer: Region) -> dict[str, object]:
    settings = config.link(source, here, peer)
    sink = config.sink(source, peer)
    return {
        "from": here,
        "to": peer,
        "source": source,
        "reads": config.sources[source].reads_in(here),
        "writes": sink.writes_in(here if peer == LAKE else peer),
        **settings.model_dump(),
        "in_doubt_wait_s": _wait_s(config, settings),
    }


def _wait_s(config: Config, link: LinkDefaults) -> float:
    """How long a takeover waits where the peer refuses late requests."""
    computed_s = link.request_lifetime_s + config.limits.clock_margin_s
    return computed_s if link.in_doubt_wait_s is None else link.in_doubt_wait_s


def _link_table(config: Config) -> Table:
    table = Table(title="Links", title_justify="left")
    for name in ("from", "to", "source", "reads", "writes", "ordering", "requests in flight", "in doubt"):
        table.add_column(name, overflow="fold")
    for source, here, peer in _links(config):
        link = _link(config, source, here, peer)
        doubt = f"{link['in_doubt']} after {link['in_doubt_wait_s']:g} s" if link["in_doubt"] == "verify" else "resend"
        packed = ", packed" if link["aggregate"] == "kpl" else ""
        state = f"{link['ordering']}{packed}{', paused' if link['paused'] else ''}"
        table.add_row(
            here,
            peer,
            source,
            str(link["reads"]),
            str(link["writes"]),
            state,
            f"{link['in_flight_max']} a shard",
            doubt,
        )
    return table


def _proofs(config: Config, topologies: Topologies) -> list[str]:
    """Of regions, then of the streams, queues and tables in them. Raises ConfigError (TopologyError)."""
    return [
        *(_proof(topologies.generation(number)) for number in topologies.numbers),
        *prove_streams(config, topologies),
        *prove_tables(config),
    ]


def _proof(generation: Generation) -> str:
    count = len(generation.regions)
    hops = max(len(path) for paths in generation.paths.values() for path in paths.values()) - 1
    return (
        f"Proven for generation {generation.number}: from each of {count} origins every other region is reached "
        f"exactly once, over at most {hops} link{'s' if hops > 1 else ''}; no cycle."
    )
