"""How much of the retention is used up is known of every shard that has data, and said long before it is all."""

import asyncio

import pytest
from small_world import LINK, Worker, World, in_virtual_time, until
from structlog.testing import capture_logs

from replicator.adapters.memory_stream import MemorySource, MemoryStream
from replicator.core.model import LinkName
from replicator.errors import TransientError
from replicator.ports import Cursor, Page
from replicator.worker.link import LinkSettings
from replicator.worker.retention import RetentionWatch, longest

USED = "source_retention_used_ratio"


def said(*used: float) -> list[tuple[str, float]]:
    watch = RetentionWatch(LinkName("orders:eu-west-1"))
    with capture_logs() as told:
        for ratio in used:
            watch.note(ratio)
    return [(f"{line['log_level']} {line['event']}", line["used"]) for line in told]


def test_each_mark_is_said_once_and_that_it_is_fine_again() -> None:
    assert said(0.49, 0.5, 0.7, 0.81, 0.9, 0.6, 0.85, 0.45, 0.39, 0.3) == [
        ("error retention.running_out", 0.5),
        ("error retention.running_out", 0.81),
        ("info retention.enough", 0.39),
    ]


def test_a_lag_that_swings_about_a_mark_is_said_once() -> None:
    assert len(said(0.51, 0.49, 0.52, 0.48, 0.53)) == 1


def test_both_marks_passed_at_once_are_said_once_and_what_is_not_known_changes_nothing() -> None:
    assert said(float("nan"), 0.95, float("nan"), 0.96) == [("error retention.running_out", 0.95)]


@pytest.mark.parametrize(("lags", "expected"), [([], None), ([None], None), ([None, 5, 7, None], 7)])
def test_the_longest_lag_that_is_known(lags: list[int | None], expected: int | None) -> None:
    assert longest(lags) == expected


class OneShardAway(MemorySource):
    """Nothing of the second shard can be read."""

    def __init__(self, stream: MemoryStream) -> None:
        super().__init__(stream)
        self._away = stream.list_shards()[1].id

    async def read(self, cursor: Cursor, records_max: int) -> Page:
        if cursor.shard == self._away:
            raise TransientError("away")
        return await super().read(cursor, records_max)


def test_one_shard_without_data_does_not_hide_how_much_of_the_retention_another_has_used() -> None:
    async def history() -> None:
        world = World(shards=2)
        world.source.retention_ms = 3_600_000

        def away(_: object) -> None:
            raise TransientError("the peer is away")

        world.peer.fault = away
        worker = Worker(world, "a", LinkSettings(), source=OneShardAway(world.source))
        with capture_logs() as told:
            world.write(20)
            await asyncio.sleep(54 * 60)
            assert 0.85 < worker.tally.gauges[USED] < 0.95
            assert worker.status()["lag_ms"] is None  # of all shards nobody can say
            world.peer.fault = None
            await until(lambda: worker.tally.gauges[USED] < 0.1)
        lines = [(line["log_level"], line["link"]) for line in told if line["event"].startswith("retention.")]
        assert lines == [("error", LINK), ("error", LINK), ("info", LINK)]
        await worker.kill()

    in_virtual_time(history())
