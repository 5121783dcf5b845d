"""CPU of the single steps of the hot path, in this process."""

import contextlib
import time
from collections.abc import Callable
from operator import attrgetter

from replicator.adapters.memory_stream import MemorySource
from replicator.aws.signer import Credentials, Signer, body_hash
from replicator.core.formats import make_format
from replicator.core.kpl import UserRecord, pack, unpack
from replicator.core.lanes import Lanes
from replicator.core.model import EventId, Origin, Record, Region, SequenceNumber, ShardId, SourceName, TrimHorizon
from replicator.core.tag import Tag, TagKeys, encode_tag
from replicator.ports import Cursor, Page
from replicator.worker.unpacking import UnpackedSource
from tests.benchmarks.load import event
from tests.benchmarks.options import Options
from tests.benchmarks.regions import Regions
from tests.benchmarks.report import Section

ROUNDS = 5
CURSOR = Cursor(ShardId("shardId-000000000000"), TrimHorizon(), "")


class OnePage(MemorySource):
    """Has one page and nothing else."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        return self._page


def cpu_us(step: Callable[[], object], repeats: int) -> float:
    """The least CPU time of one call over several rounds, in microseconds."""
    best = float("inf")
    for _ in range(ROUNDS):
        begun_s = time.process_time()
        for _ in range(repeats):
            step()
        best = min(best, (time.process_time() - begun_s) / repeats * 1e6)
    return best


def pure_steps() -> dict[str, float]:
    """Microseconds of CPU per event (per request for the signer)."""
    json_format, data = make_format("json"), event(7, 1024)
    origin = Origin(
        Region("us-east-1"), SourceName("orders"), "17", ShardId("shardId-000000000000"), SequenceNumber(49), 0
    )
    tag = Tag(1, origin, EventId("e-7"), (Region("us-east-1"),), 1_700_000_000_000)
    raw, decoded = encode_tag(tag), json_format.decode(data)
    tagged = decoded.with_tag(raw)
    keys = TagKeys("k1", {"k1": b"a secret of the tests"})
    signer = Signer("kinesis.us-east-1.amazonaws.com", "us-east-1", "kinesis", "application/x-amz-json-1.1")
    sha256, credentials = body_hash(data), Credentials("key", "secret")

    def lanes() -> None:
        queue: Lanes[Record] = Lanes(attrgetter("number"), attrgetter("arrival_ms"))
        queue.add(plain.records)
        queue.done(queue.take(500, 10**9, 0.0))

    plain = Page(tuple(Record(data, "k", str(n), 0) for n in range(500)), None, 0)
    unpacked_source = UnpackedSource(OnePage(plain))
    users = [UserRecord(data, f"k{n % 5}") for n in range(50)]
    packed = pack(users)

    def read_plain_page() -> None:
        with contextlib.suppress(StopIteration):
            unpacked_source.read(CURSOR, 500).send(None)

    return {
        "look for KPL aggregates among plain records": cpu_us(read_plain_page, 200) / 500,
        "unpack a KPL aggregate (50 events)": cpu_us(lambda: unpack(packed), 200) / 50,
        "pack one": cpu_us(lambda: pack(users), 200) / 50,
        "decode an event (1 KB json)": cpu_us(lambda: json_format.decode(data), 5000),
        "decode a replica": cpu_us(lambda: json_format.decode(tagged), 5000),
        "encode its tag": cpu_us(lambda: encode_tag(tag), 5000),
        "splice the tag in": cpu_us(lambda: decoded.with_tag(raw), 20000),
        "check of the bytes": cpu_us(decoded.check, 20000),
        "sign a tag (HMAC)": cpu_us(lambda: keys.sign(tag), 5000),
        "lane: add, take, done": cpu_us(lanes, 20) / 500,
        "sign a request (SigV4, per request)": cpu_us(
            lambda: signer.headers("Kinesis_20131202.PutRecords", sha256, 1_700_000_000.0, credentials), 2000
        ),
    }


async def steps(regions: Regions, options: Options) -> Section:
    rows = list(pure_steps().items())
    return Section(f"Steps, best of {ROUNDS} rounds", ("step", "CPU, us an event"), rows, data=dict(rows))
