"""What a seed means: regions, topology, settings, what producers write, and which disasters happen when.

Every seed takes part of the disasters only, and some take none of a kind at all: a history in which everything happens
at once hides what one thing alone would show.
"""

import random
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

NAMES = ("a", "b", "c", "d", "e")
LOAD_S = 60.0
"""Producers write and disasters happen for so long; then everything is calm."""
SIGNATURE_S = 40.0
"""How long a receiver takes a signed request; AWS: 300 s. Shorter here, but as there longer than a takeover takes."""
SKEW_MS = 10_000
"""More than the margin: a worker must not trust its own clock where a peer's is meant."""
REQUEST_LIFETIME_S = 8.0
CLOCK_MARGIN_S = 4.0
IN_DOUBT_WAIT_S = SIGNATURE_S + 3 * CLOCK_MARGIN_S
"""The longest that is waited, where the fence is not to be trusted."""

MEMORY_BYTES = 64 * 1024 * 1024
SCARCE_BYTES = (1_000, 12_000, 100_000)
"""So little memory that queues and windows hold little more than a record each."""

Kind = Literal["mesh", "hub", "chain"]
Disaster = Literal[
    "crash",
    "crash_all",
    "crash_in_call",
    "crash_at_step",
    "pause",
    "pause_in_call",
    "pause_before_send",
    "lonely_worker",
    "partition",
    "split_network",
    "region_down",
    "redis_flush",
    "redis_rollback",
    "redis_away",
    "redis_ambiguous",
    "leases_away",
    "throttle",
    "partial_failures",
    "hot_key",
    "stuck_handover",
    "late_put",
    "ambiguous_replies",
    "repeated_requests",
    "slow_network",
    "reshard",
    "unlisted_reshard",
    "recreate",
    "lease_rollback",
    "pause_link",
    "scale_up",
    "scale_down",
    "rolling_restart",
    "other_version",
]
DISASTERS: tuple[Disaster, ...] = Disaster.__args__  # type: ignore[attr-defined] - how a Literal tells its values

THEMES: tuple[tuple[Disaster, ...], ...] = (
    ("rolling_restart", "scale_up", "scale_down", "throttle", "partial_failures", "ambiguous_replies"),
    ("stuck_handover", "redis_ambiguous"),
    ("stuck_handover", "redis_flush", "redis_rollback"),
    ("rolling_restart", "hot_key", "redis_away", "redis_rollback", "redis_flush", "throttle", "partial_failures"),
    ("pause_in_call", "crash_in_call", "lonely_worker", "ambiguous_replies", "throttle"),
    ("pause_in_call", "slow_network"),
    ("crash_in_call", "redis_rollback", "redis_flush", "redis_away"),
    ("crash_in_call", "ambiguous_replies"),
    ("crash_at_step",),
    ("crash_at_step", "scale_up", "redis_flush"),
    ("unlisted_reshard", "crash_in_call", "ambiguous_replies"),
    ("reshard", "crash_in_call", "pause_in_call", "slow_network", "rolling_restart"),
    ("lonely_worker", "slow_network", "scale_up"),
    ("late_put",),
    ("late_put", "scale_up", "redis_flush"),
    ("pause_before_send",),
    ("recreate", "slow_network", "pause_in_call"),
    ("other_version", "scale_up", "scale_down"),
    ("other_version",),
    ("repeated_requests",),
    ("repeated_requests", "stuck_handover", "redis_away", "redis_ambiguous"),
    ("repeated_requests", "ambiguous_replies", "partial_failures", "throttle", "rolling_restart"),
)
LENGTHS_S = (1, 5, 12, 50)


class Event(Struct, frozen=True):
    """What a producer writes. ``kind``: ``good``, ``copy`` of one before, ``broken``, ``too_big`` or ``refused``."""

    at_s: float
    region: str
    key: str
    data: bytes
    kind: str = "good"


class Happening(Struct, frozen=True):
    """``draw`` seeds the choices made when it happens, among what there is then."""

    at_s: float
    kind: Disaster
    length_s: float
    draw: int


class Scenario(Struct, frozen=True):
    seed: int
    regions: tuple[str, ...]
    kinds: tuple[Kind, ...]
    """The topology, and sometimes one to change to."""
    changes_at_s: float
    skews_ms: dict[str, int]
    shards: dict[str, int]
    workers: dict[str, int]
    ordering: Literal["key", "none"]
    in_doubt: Literal["verify", "resend"]
    on_loss: Literal["continue", "pause"]
    aggregate: Literal["none", "kpl"]
    on_poison: Literal["skip", "hold_key"]
    packed_max: int
    """Producers write so many events of a key in one aggregate, where they come close together."""
    is_signed: bool
    in_flight_max: int
    span_records_max: int
    open_spans_max: int
    open_bytes_max: int
    window_bytes: int
    records_per_read: int
    records_max: int
    read_back_records_max: int
    is_troubled: bool
    events: tuple[Event, ...]
    happenings: tuple[Happening, ...]
    memory_bytes: int = MEMORY_BYTES
    """For all events in a worker's memory, every copy counted."""
    learns_at_s: dict[str, float] = {}
    """When a region is configured with the topology to change to; those that are not named know it from the start."""


def scenario(seed: int) -> Scenario:
    rng = random.Random(f"scenario {seed}")
    regions = NAMES[: rng.choice((2, 2, 2, 3, 3, 3, 4, 5))]
    made = _scenario(seed, rng, regions)
    return replace(made, learns_at_s=_learning(random.Random(f"learning {seed}"), made))


KNOWN_BEFORE_S = 15.0
"""So long before a topology starts every region has it in all its workers, as the README's roll-out asks."""


def _learning(rng: random.Random, plan: Scenario) -> dict[str, float]:
    latest_s = plan.changes_at_s - KNOWN_BEFORE_S
    if len(plan.kinds) == 1 or latest_s <= 0:
        return {}
    return {region: rng.random() * latest_s for region in plan.regions if rng.random() < 0.7}


def _scenario(seed: int, rng: random.Random, regions: tuple[str, ...]) -> Scenario:
    return Scenario(
        seed=seed,
        regions=regions,
        kinds=tuple(rng.choice(("mesh", "mesh", "hub", "chain")) for _ in range(rng.choice((1, 1, 1, 2)))),
        changes_at_s=rng.random() * LOAD_S,
        skews_ms={region: rng.choice((0, rng.randint(-SKEW_MS, SKEW_MS))) for region in regions},
        shards={region: rng.choice((1, 1, 2, 3)) for region in regions},
        workers={region: rng.choice((1, 1, 2, 2, 3)) for region in regions},
        ordering="none" if rng.random() < 0.1 else "key",
        in_doubt="resend" if rng.random() < 0.1 else "verify",
        on_loss="pause" if rng.random() < 0.2 else "continue",
        aggregate=rng.choice(("none", "none", "kpl")),
        on_poison=rng.choice(("skip", "skip", "hold_key")),
        packed_max=rng.choice((1, 1, 1, 4)),
        is_signed=rng.random() < 0.15,
        in_flight_max=rng.choice((1, 2, 4)),
        span_records_max=rng.choice((1, 3, 8, 500)),
        open_spans_max=rng.choice((2, 3, 8)),
        open_bytes_max=rng.choice((600, 3000, 100_000)),
        window_bytes=rng.choice((200, 1500, 100_000)),
        records_per_read=rng.choice((2, 5, 20, 1000)),
        records_max=rng.choice((2, 5, 500)),
        read_back_records_max=3 if rng.random() < 0.03 else 1_000_000,
        is_troubled=rng.random() < 0.5,
        events=_events(rng, regions),
        happenings=_happenings(rng),
        memory_bytes=random.Random(f"memory {seed}").choice((MEMORY_BYTES, *SCARCE_BYTES)),
    )


def _events(rng: random.Random, regions: tuple[str, ...]) -> tuple[Event, ...]:
    keys = [f"k{number}" for number in range(rng.choice((1, 3, 8)))]
    count = rng.randint(20, 150) // (1 if len(regions) < 4 else 2)
    is_poisoned, has_copies = rng.random() < 0.3, rng.random() < 0.3
    burst_s = rng.choice((None, 0.2, 0.2, 2.0))
    events: list[Event] = []
    bursts = [rng.random() * LOAD_S for _ in range(8)]
    for number in range(count):
        at_s = rng.choice(bursts) + rng.random() * burst_s if burst_s else rng.random() * LOAD_S
        kind = "good"
        if is_poisoned and rng.random() < 0.1:
            kind = rng.choice(("broken", "too_big", "refused"))
        region, key = rng.choice(regions), rng.choice(keys)
        events.append(Event(at_s, region, key, _bytes(rng, number, kind), kind))
        if has_copies and kind == "good" and rng.random() < 0.1:
            events.append(Event(at_s + rng.choice((0.0, 0.1, 10.0)) * rng.random(), *_copy(events[-1])))
        elif has_copies and kind == "good" and rng.random() < 0.05:
            data = b'{"id":"e%d","n":%d,"other":1}' % (number, number + 10_000)
            events.append(Event(at_s + rng.random(), region, key, data))
    return tuple(sorted(events, key=lambda event: event.at_s))


def _copy(event: Event) -> tuple[str, str, bytes, str]:
    return event.region, event.key, event.data, "copy"


def _bytes(rng: random.Random, number: int, kind: str) -> bytes:
    """``n`` is the event's own number, by which the checker knows it."""
    match kind:
        case "broken":
            return (
                rng.choice((b"[%d]", b'{"n":%d', b'{"_replicator":{"v":2},"n":%d}', b'{"_replicator":7,"n":%d}'))
                % number
            )
        case "too_big":
            return b'{"id":"e%d","n":%d,"big":"%b"}' % (number, number, b"x" * TOO_BIG)
        case "refused":
            return b'{"id":"e%d","n":%d,"%b":1}' % (number, number, REFUSED)
    padding = b"p" * rng.choice((0, 10, 100))
    return b'{"id":"e%d","n":%d,"p":"%b"}' % (number, number, padding)


RECORD_BYTES_MAX = 1000
TOO_BIG = RECORD_BYTES_MAX
REFUSED = b"never-take-this"


def _happenings(rng: random.Random) -> tuple[Happening, ...]:
    theme = rng.choice((DISASTERS, DISASTERS, *THEMES))
    kinds = rng.sample(theme, rng.randint(1, min(5, len(theme))))
    happenings = [
        Happening(rng.random() * LOAD_S, rng.choice(kinds), rng.choice(LENGTHS_S) * rng.random(), rng.getrandbits(32))
        for _ in range(rng.randint(1, rng.choice((3, 9, 15))))
    ]
    return tuple(sorted(happenings, key=lambda happening: happening.at_s))
