"""Breaks the protocol on purpose, one way at a time, and shows that the simulator notices.

``python -m tests.simulation.mutants [NAME ...]`` runs seeds 1, 2, ... for each mutant, in a process of its own, until a
history is judged bad, and prints which seed it was and what was found. Exit status 1 when one is not found in time.

Three mutants are too rare for that: `RARE` are shown by the histories kept for them, which every test run plays.

Some rules are not broken here, because 2,000 histories did not need them: that a parent without a row is not taken for
finished while it is listed (`tests/unit/test_leasing.py`); that the claim store itself refuses a lower epoch, whose
owner is kept from sending already (`tests/contract/test_claim_store.py`); and that an event of a held key is put away
only when nobody has sent it (`tests/unit/test_recovery.py`; of 10,000 histories one needed it).
"""

import argparse
import asyncio
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from replicator.aws.kinesis_reading import Reading
from replicator.core import claims, lending, routing
from replicator.core.in_doubt import Dated, dated
from replicator.core.lanes import Lanes
from replicator.core.model import After, Checkpoint, Position
from replicator.core.peer_clock import PeerClock, PeerTime
from replicator.core.topology import Topologies
from replicator.core.watermark import Watermark
from replicator.errors import Fenced, InDoubt, PoisonEvent, Refused
from replicator.ports import ClaimSession, Found, Page
from replicator.worker import heritage, leasing
from replicator.worker.admission import Admission
from replicator.worker.channel import Channel
from replicator.worker.claiming import Claiming
from replicator.worker.fence import Fence
from replicator.worker.heritage import NOTHING_OPEN, Heritage
from replicator.worker.leasing import LeaseKeeper
from replicator.worker.one_incarnation import OneIncarnation
from replicator.worker.publisher import Publisher, Taken
from replicator.worker.recovery import Recovery
from replicator.worker.room import Room
from replicator.worker.settlement import Settlement
from replicator.worker.shard_log import ShardLog
from replicator.worker.span import Item, Span
from replicator.worker.window import Batch

from . import scenario
from .run import simulate
from .world import EPOCH_MS

SEEDS_MAX = 2000
MISFIT = (TypeError, AttributeError, NameError, LookupError)
"""A mutant that breaks the code instead of the protocol proves nothing."""
DOES_NOT_FIT = "does not fit the code any more"
Mutant = Callable[[], None]
MUTANTS: dict[str, Mutant] = {}
RARE = {"former_sessions_not_refused", "settled_though_dropped", "settlements_not_compared"}


def mutant(function: Mutant) -> Mutant:
    """Its docstring says what is broken."""
    MUTANTS[function.__name__] = function
    return function


def put(owner: object, name: str, broken: Any) -> None:
    assert hasattr(owner, name), f"{owner} has no {name} any more: the mutant must follow"
    setattr(owner, name, broken)


# --- settling and checkpoints --------------------------------------------------------------------------------------


@mutant
def settle_before_publish() -> None:
    """A span is settled when it is claimed, not when its events are stored."""

    def opened(self: Settlement, span: Span) -> None:
        self.open_bytes += span.size_bytes
        span.pending = 0
        self._finished.put_nowait(span)

    put(Settlement, "opened", opened)


@mutant
def checkpoint_at_the_last() -> None:
    """The watermark goes to the last finished span, whatever is open before it."""

    def advance(self: Watermark[Span]) -> bool:
        finished = [span for span in self.open if span.is_finished]
        for span in finished:
            self.open.remove(span)
            self.position = span.end
        return bool(finished)

    put(Watermark, "advance", advance)


@mutant
def watermark_of_claims_ahead() -> None:
    """The claim store is told a watermark that includes what is still open."""

    def mark(self: Settlement) -> int:
        ends = [span.end.sequence for span in self.open if isinstance(span.end, After)]
        return max(ends, default=0)

    put(Settlement, "_mark", mark)


@mutant
def quarantine_later() -> None:
    """A poison event counts as done before the quarantine has it."""

    async def quarantine(self: Admission, prepared: Any, poison: PoisonEvent, attempts: int) -> None:
        async def store() -> None:
            await asyncio.sleep(1.0)
            await keep(self, prepared, poison, attempts)

        self._later = [*getattr(self, "_later", []), asyncio.ensure_future(store())]  # type: ignore[attr-defined] - the mutant's own

    keep = Admission.quarantine
    put(Admission, "quarantine", quarantine)


@mutant
def copies_forgotten_when_done() -> None:
    """A copy of an event that is stored but not settled yet is taken for a new event."""

    class Forgetful(dict[bytes, Item]):
        def __contains__(self, claim: object) -> bool:
            first = self.get(claim)  # type: ignore[call-overload] - as the caller's
            return first is not None and not first.is_done

    def made(self: Admission, *args: Any) -> None:
        original(self, *args)
        self._open = Forgetful()

    original = Admission.__init__
    put(Admission, "__init__", made)
    put(Admission, "settled", lambda self, span: [self._open.pop(item.prepared.claim, None) for item in span.items])


# --- the right to send ---------------------------------------------------------------------------------------------


@mutant
def send_without_lease() -> None:
    """The right to send is not checked."""
    put(LeaseKeeper, "surely_holds", lambda self, lease: True)


@mutant
def lease_without_alarm() -> None:
    """An owner that can't renew goes on, until somebody tells it."""

    def wind(self: LeaseKeeper, held: Any, begun_s: float) -> None:
        held.alarm = asyncio.get_running_loop().call_at(begun_s + 1e6, lambda: None)

    put(LeaseKeeper, "_wind", wind)


@mutant
def handover_with_requests_under_way() -> None:
    """A drain does not wait for requests that are under way, and says that nothing is open."""

    async def until_quiet(self: Channel, publishing: "asyncio.Task[None]") -> bool:
        publishing.cancel()
        return True

    put(Channel, "_until_quiet", until_quiet)


@mutant
def released_with_open_events() -> None:
    """A release says that nothing is open though events are."""

    def final(self: Channel, is_quiet: bool) -> Checkpoint:
        return replace(self.checkpoint(), released=NOTHING_OPEN)

    put(Channel, "_final", final)


# --- in doubt ------------------------------------------------------------------------------------------------------


@mutant
def no_wait_after_takeover() -> None:
    """The peer is read back at once, while requests of the lost owner may still arrive."""

    async def outwait(self: Recovery, durable: Checkpoint, lifetime_ms: int | None) -> bool:
        return True

    put(Recovery, "_outwait", outwait)


@mutant
def requests_live_longer_than_recorded() -> None:
    """Requests are not dated back, though the checkpoint says that they are."""

    def sign(self: Fence) -> Dated:
        return dated(self._peer_ms(), None, self.rules)

    put(Fence, "sign", sign)


@mutant
def dated_by_our_own_clock() -> None:
    """The date of a request comes from our wall clock instead of from what is known of the peer's."""

    def peer_ms(self: Fence) -> int:
        return self._clock.now_ms()

    put(Fence, "_peer_ms", peer_ms)


@mutant
def dated_when_it_leaves() -> None:
    """The right to send is looked at first, and the request dated when the worker comes to send it."""

    def made(self: Publisher, *args: Any) -> None:
        made_originally(self, *args)
        self._looked = self._may_send  # type: ignore[attr-defined] - the mutant's own
        self._may_send = lambda: True

    async def send(self: Publisher, taken: Taken) -> None:
        if not self._looked():  # type: ignore[attr-defined] - see above
            raise Fenced("the lease was not renewed in time")
        await asyncio.sleep(0)
        await original(self, taken)

    made_originally, original = Publisher.__init__, Publisher._send
    put(Publisher, "__init__", made)
    put(Publisher, "_send", send)


@mutant
def lifetime_of_an_owner_that_tells_none() -> None:
    """An owner of a version that does not tell how long its requests live is waited for as if they lived as long as
    ours."""

    def promised_ms(durable: Checkpoint, epoch: int) -> int | None:
        known_ms = original(durable, epoch)
        return int(scenario.REQUEST_LIFETIME_S * 1000) if known_ms is None else known_ms

    original = heritage.promised_ms
    put(heritage, "promised_ms", promised_ms)


@mutant
def ambiguous_answer_sent_again() -> None:
    """An answer that never came is taken for a failure without effect."""

    async def resolve(self: Publisher, taken: Taken, request: Dated, exc: InDoubt) -> None:
        self._retry(taken, "in_doubt", rests=False)

    put(Publisher, "_resolve", resolve)


@mutant
def ambiguous_answer_taken_for_stored() -> None:
    """An answer that never came is taken for success."""

    async def resolve(self: Publisher, taken: Taken, request: Dated, exc: InDoubt) -> None:
        self._stored(taken)

    put(Publisher, "_resolve", resolve)


@mutant
def ambiguous_answer_read_at_once() -> None:
    """After an ambiguous answer the peer is read at once, while the request may still be on its way."""

    async def outwait(self: Recovery, request: Dated) -> bool:
        return True

    put(Recovery, "_outwait_request", outwait)


@mutant
def reading_forgets_a_shard() -> None:
    """Reading back leaves out the last shard listed."""

    async def read_all(self: Reading, shards: list[Any]) -> None:
        await original(self, shards[:1])

    original = Reading._read_all
    put(Reading, "_read_all", read_all)


@mutant
def reading_forgets_parents() -> None:
    """Reading back looks at open shards only."""

    async def run(self: Reading) -> Found:
        shards = await self._api.shards()
        parents = {parent for shard in shards for parent in shard.parents}
        await self._read_all([shard.id for shard in shards if shard.id not in parents])
        return Found(frozenset(self._origins), not self._bound_met, self._records, self._bound_met)

    put(Reading, "run", run)


@mutant
def reading_ends_with_its_first_shards() -> None:
    """Reading back does not go on to the children of the shards that it was told of at first."""

    async def run(self: Reading) -> Found:
        await self._read_all([shard.id for shard in await self._api.shards()])
        return Found(frozenset(self._origins), not self._bound_met, self._records, self._bound_met)

    put(Reading, "run", run)


@mutant
def found_but_sent_again() -> None:
    """What reading back found is not remembered."""

    async def find_since(self: Recovery, *asked: Any) -> Found:
        return replace(await original(self, *asked), origins=frozenset())

    original = Recovery.find_since
    put(Recovery, "find_since", find_since)


@mutant
def redis_proves_absent() -> None:
    """What the claim store does not know is taken for never attempted."""

    async def take_over(self: Heritage, session: ClaimSession | None) -> None:
        if session is None or session.is_new:
            await original(self, session)

    original = Heritage.take_over
    put(Heritage, "take_over", take_over)


@mutant
def lost_redis_proves_absent() -> None:
    """A claim store that knows nothing is taken for proof that nothing was attempted."""

    async def take_over(self: Heritage, session: ClaimSession | None) -> None:
        if session is None or not session.is_new:
            await original(self, session)

    original = Heritage.take_over
    put(Heritage, "take_over", take_over)


@mutant
def mark_not_compared() -> None:
    """A graceful release is believed although the claim store went back or was lost since."""

    async def take_over(self: Heritage, session: ClaimSession | None) -> None:
        if self._durable.released is None:
            await original(self, session)

    original = Heritage.take_over
    put(Heritage, "take_over", take_over)


@mutant
def marks_outlive_their_session() -> None:
    """Marks of the former owner are relied on although the claim store was lost or away since."""
    put(Heritage, "must_look_up", lambda self, batch: False)


@mutant
def marks_relied_on_without_an_answer() -> None:
    """Marks of the former owner are relied on for a batch about which the claim store did not answer."""
    original = Heritage.must_look_up
    put(Heritage, "must_look_up", lambda self, batch: original(self, 0 if batch is None else batch))


@mutant
def release_forgets_settled_spans() -> None:
    """A release says that nothing is open when only settled spans lie behind the open one."""

    def final(self: Channel, is_quiet: bool) -> Checkpoint:
        for span in self._settlement.open:
            span.is_finished = False
        return original(self, is_quiet)

    original = Channel._final
    put(Channel, "_final", final)


@mutant
def floor_too_late() -> None:
    """The attempt floor is the time of the checkpoint, not of the oldest attempt that is open."""
    put(Channel, "_floor", lambda self: self.link.peer_estimate_ms())


@mutant
def floor_not_durable() -> None:
    """The first attempt does not wait until its floor is stored."""

    async def until_durable(self: Channel) -> bool:
        return True

    put(Channel, "_until_durable", until_durable)


@mutant
def landed_cleared_too_early() -> None:
    """What was found in the peer is forgotten with the first batch."""

    async def take_run(self: Channel) -> None:
        await original(self)
        self._heritage.passed()

    original = Channel._take_run
    put(Channel, "_take_run", take_run)


# --- order ---------------------------------------------------------------------------------------------------------


@mutant
def retries_to_the_tail() -> None:
    """An event that failed goes behind the later ones of its key."""

    def put_back(self: Lanes[Any], head: Any, *, joined: Any = (), not_before_s: Any = None) -> None:
        queue = self._queue(self._lane_of(head))
        queue.extend((*joined, head))
        self.waiting += 1 + len(joined)
        original(self, queue.popleft(), not_before_s=not_before_s)
        self.waiting -= 1

    original = Lanes.put_back
    put(Lanes, "put_back", put_back)


@mutant
def two_of_a_key_in_one_request() -> None:
    """A request takes the two oldest events of a lane, the second as if it had a lane of its own."""

    seconds = set[int]()

    def take(self: Lanes[Any], items_max: int, bytes_max: int, now_s: float) -> list[Any]:
        taken = original(self, items_max, bytes_max, now_s)
        for head in tuple(taken):
            queue = self._behind.get(self._lane_of(head))
            if queue and id(head) not in seconds and len(taken) < items_max:
                self.waiting -= 1
                taken.append(queue.popleft())
                seconds.add(id(taken[-1]))
        return taken

    def done(self: Lanes[Any], heads: Iterable[Any]) -> None:
        heads = list(heads)
        original_done(self, [head for head in heads if id(head) not in seconds])
        seconds.difference_update(map(id, heads))

    original, original_done = Lanes.take, Lanes.done
    put(Lanes, "take", take)
    put(Lanes, "done", done)


@mutant
def lanes_ignored() -> None:
    """Every event has a lane of its own."""

    def init(self: Lanes[Any], _: object, size_of: Callable[[Any], int]) -> None:
        original(self, id, size_of)

    original = Lanes.__init__
    put(Lanes, "__init__", init)


@mutant
def children_before_parents() -> None:
    """A shard is read while its parents are not finished."""
    put(leasing, "parents_done", lambda lease, link, rows, listed: True)


# --- claims --------------------------------------------------------------------------------------------------------


@mutant
def claims_not_settled() -> None:
    """The claim store is never told what is done."""

    async def settle(self: Claiming, store: Any, batch: Any, undone: Any, mark: Any, *, may_wait: bool) -> bool:
        return True

    put(Claiming, "settle", settle)


@mutant
def settled_though_dropped() -> None:
    """The claim store answers that a batch is settled which an attaching that came late or twice has dropped."""

    def attach(state: claims.ClaimState, epoch: int, attempt: int) -> int:
        dropped = original(state, epoch, attempt)
        state.dropped = 0
        return dropped

    original = claims.attach
    put(claims, "attach", attach)


@mutant
def former_sessions_not_refused() -> None:
    """The claim store takes what an owner's earlier session sent for a word of the one there is now."""

    def check_held(state: claims.ClaimState | None, incarnation: str, epoch: int, _: int) -> claims.ClaimState:
        return original(state, incarnation, epoch, 0 if state is None else state.attempt)

    original = claims.check_held
    put(claims, "check_held", check_held)


@mutant
def settlements_not_compared() -> None:
    """A release names the batch of the claim store only: one that fell back behind a settlement stands there too."""

    async def take_over(self: Heritage, session: ClaimSession | None) -> None:
        mark = self._durable.released
        if session is not None and mark is not None and mark != NOTHING_OPEN:
            self._durable = replace(self._durable, released=replace(mark, settled=session.settled))
        await original(self, session)

    original = Heritage.take_over
    put(Heritage, "take_over", take_over)


# --- reading the source --------------------------------------------------------------------------------------------


@mutant
def rejoin_skips_a_record() -> None:
    """A detached link that reads past the live reader is cut there, but goes on from where it read to."""

    async def read_detached(self: ShardLog, position: Position, cursor: Any, room_bytes: int | None) -> Any:
        batch, following = await original(self, position, cursor, room_bytes)
        if following is not None and isinstance(following.position, After) and batch.after != following.position:
            return replace(batch, after=following.position), following
        return batch, following

    original = ShardLog._read_detached
    put(ShardLog, "_read_detached", read_detached)


@mutant
def segment_from_its_beginning() -> None:
    """A link inside a segment of the window gets all of it."""
    put(ShardLog, "_find", _find_all)


def _find_all(self: ShardLog, position: Position) -> Batch | None:
    found = self.window.find(position)
    return None if found is None else self._batch(found[0], 0)


@mutant
def cursor_of_another_place() -> None:
    """A detached link goes on with its cursor although it stands elsewhere."""

    async def read_detached(self: ShardLog, position: Position, cursor: Any, room_bytes: int | None) -> Any:
        moved = replace(cursor, position=position) if cursor is not None else None
        return await original(self, position, moved, room_bytes)

    original = ShardLog._read_detached
    put(ShardLog, "_read_detached", read_detached)


@mutant
def end_of_shard_too_early() -> None:
    """A page without records is taken for the end of a shard."""

    def segment(self: ShardLog, before: Position, page: Page) -> Any:
        return original(self, before, page if page.behind_ms else replace(page, next=None))

    original = ShardLog._segment
    put(ShardLog, "_segment", segment)


@mutant
def incarnation_not_compared() -> None:
    """What a stream made anew holds is taken for what the old one held."""

    async def read(self: OneIncarnation, cursor: Any, records_max: int) -> Page:
        return await self._source.read(cursor, records_max)

    put(OneIncarnation, "read", read)


# --- routing and poison --------------------------------------------------------------------------------------------


@mutant
def routes_ignored() -> None:
    """Every event goes over every link."""
    put(routing.Router, "decide", lambda self, route: routing.FORWARD)


@mutant
def routed_by_history_only() -> None:
    """An event goes wherever it has not been."""

    def decide(self: routing.Router, route: routing.Route) -> Any:
        return self._by_history(route) or routing.FORWARD if route.path else routing.FORWARD

    put(routing.Router, "decide", decide)


@mutant
def generation_of_the_moment() -> None:
    """An event leaves under the generation that holds when a link looks at it, not when it arrived."""

    def generation_at(self: Topologies, arrival_ms: int) -> int:
        return original(self, EPOCH_MS + int(asyncio.get_running_loop().time() * 1000))

    original = Topologies.generation_at
    put(Topologies, "generation_at", generation_at)


@mutant
def refused_request_given_up_whole() -> None:
    """A request that the peer refuses is quarantined whole, not halved until the culprit is alone."""

    async def split(self: Publisher, taken: Taken, exc: Refused) -> None:
        self._lanes.done(taken)
        for head in taken:
            self._on_stored([head, *head.packed])

    put(Publisher, "_split", split)


@mutant
def clock_of_the_peer_ahead() -> None:
    """What is known of the peer's clock is ahead of it, so attempt floors are too late."""

    def at(self: PeerClock, now_s: float) -> PeerTime | None:
        known = original(self, now_s)
        return known and PeerTime(
            known.earliest_ms + 3 * scenario.SKEW_MS, known.latest_ms + 3 * scenario.SKEW_MS, now_s
        )

    original = PeerClock.at
    put(PeerClock, "at", at)


# --- memory --------------------------------------------------------------------------------------------------------


@mutant
def room_without_end() -> None:
    """A link takes in whatever its source has, whether its peer takes it or not."""
    put(Room, "is_left", property(lambda self: True))


@mutant
def budget_not_divided() -> None:
    """Every window and queue has as much room as its own settings say, however many there are."""
    put(lending, "share_bytes", lambda budget_bytes, holders: 2**40)


# --- running -------------------------------------------------------------------------------------------------------


class Listening:
    """A logger that keeps what shards failed with."""

    def __init__(self, inner: Any, failures: list[BaseException]) -> None:
        self._inner = inner
        self._failures = failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def exception(self, event: str, **context: object) -> None:
        failure = sys.exc_info()[1]
        assert failure is not None, "logged where it was caught"
        self._failures.append(failure)
        self._inner.exception(event, **context)


def hunt(name: str, seeds_max: int = SEEDS_MAX) -> tuple[int, str] | None:
    """The first seed that shows the mutant, and what was found; to be called in a process of its own."""
    MUTANTS[name]()
    failures: list[BaseException] = []
    put(leasing, "logger", Listening(leasing.logger, failures))
    for seed in range(1, seeds_max + 1):
        try:
            breaches: Sequence[str] = simulate(seed).breaches
        except Exception as exc:  # noqa: BLE001 - a broken worker may break the world
            failures.append(exc)
            breaches = [f"{type(exc).__name__}: {exc}"]
        if breaches:
            return seed, _misfit(failures) or breaches[0].strip()
    return None


def _misfit(failures: Sequence[BaseException]) -> str:
    """What a shard failed with that says that the mutant does not fit; empty when there is no such thing."""
    while failures:
        found = next((exc for exc in failures if isinstance(exc, MISFIT)), None)
        if found is not None:
            return f"{DOES_NOT_FIT}: {type(found).__name__}: {found}"
        failures = [inner for exc in failures if isinstance(exc, BaseExceptionGroup) for inner in exc.exceptions]
    return ""


def _hunted(name: str) -> tuple[str, tuple[int, str] | None]:
    return name, hunt(name)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants")
    parser.add_argument("names", nargs="*", default=[*MUTANTS.keys() - RARE])
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    begun_s = time.monotonic()
    missed = 0
    # Not concurrent.futures: with max_tasks_per_child its pool can hang in Python 3.11.
    with multiprocessing.get_context("spawn").Pool(args.processes, maxtasksperchild=1) as pool:
        for name, found in pool.imap_unordered(_hunted, args.names):
            told = f"seed {found[0]:4}: {found[1]}" if found else f"not found in {SEEDS_MAX} seeds"
            missed += found is None or found[1].startswith(DOES_NOT_FIT)
            print(f"{name:36} {told}", flush=True)
    print(f"{len(args.names)} mutants, {missed} not found, {time.monotonic() - begun_s:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
