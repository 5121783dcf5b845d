"""The demo: a clean verdict from one command, and nothing left behind however it ends."""

import asyncio
import io
import json
import os
import random
import signal
import subprocess
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from rich.console import Console

from replicator.dev.checker import judge
from replicator.dev.checker_reading import read_hub
from replicator.dev.clients import kinesis_client
from replicator.dev.demo_run import Run, Script
from replicator.dev.demo_view import View
from replicator.dev.environment import Environment
from replicator.dev.environment_config import Layout
from replicator.dev.workload import Keys, Ledger, Producer, StreamClient

REGION = "us-east-1"
DEADLINE_S = 120.0
POLL_S = 0.05
MARK = "REPLICATOR_TEST_MARK"

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks for left-over processes in /proc")


# --- the command -------------------------------------------------------------------------------------------


class DemoProcess:
    """A running ``replicator demo`` whose children carry its mark and whose files are under ``files``."""

    def __init__(self, files: Path, *options: str) -> None:
        self.files = files
        self.mark = uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, "-m", "replicator", "demo", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, MARK: self.mark, "TMPDIR": str(files), "COLUMNS": "200"},
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout

    def read_until(self, text: str) -> None:
        lines = []
        for line in self._output:
            lines.append(line)
            if text in line:
                return
        raise AssertionError(f"the demo ended without saying {text!r}:\n{''.join(lines)}")

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def finish(self) -> tuple[int, str]:
        """Exit status and the rest of the output."""
        output, _ = self._process.communicate(timeout=DEADLINE_S)
        return self._process.returncode, output

    def children(self) -> dict[int, str]:
        """The command lines of all processes of the demo but itself.

        They inherited its mark; a Valkey overwrites its environment with its title, but works in its directory.
        """
        pids = [pid for pid in _pids() if self.mark in _file(pid, "environ") or self._works_here(pid)]
        return {pid: _file(pid, "cmdline").replace("\0", " ") for pid in pids if pid != self._process.pid}

    def _works_here(self, pid: int) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/cwd").startswith(str(self.files))
        except OSError:
            return False  # it ended meanwhile, or belongs to somebody else

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._output.close()


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _file(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
    except OSError:
        return ""  # it ended meanwhile, or belongs to somebody else


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., DemoProcess]]:
    started: list[DemoProcess] = []

    def start(*options: str) -> DemoProcess:
        started.append(DemoProcess(tmp_path, *options))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def assert_nothing_is_left(demo: DemoProcess) -> None:
    assert demo.children() == {}
    assert list(demo.files.iterdir()) == []


@linux_only
@pytest.mark.slow
def test_one_command_loses_a_region_gets_it_back_and_ends_with_a_clean_verdict(
    demo: Callable[..., DemoProcess],
) -> None:
    run = demo("--seconds", "12", "--events", "3000", "--output", "json")
    status, output = run.finish()
    assert status == 0, output
    verdict = json.loads(output.splitlines()[-1])
    faults = ("lost", "looped", "duplicated", "reordered", "foreign", "altered", "lost_at_home", "written_twice")
    assert {name: verdict[name] for name in faults} == dict.fromkeys(faults, 0), output
    assert verdict["clean"]
    assert verdict["self_test"]
    # What was under way when the region was lost may be written or not; other events were written in its place.
    assert verdict["to_tables"] == 120
    assert 3120 <= verdict["written"] <= 3120 + verdict["replies_lost"]
    assert sum(verdict["delivered"].values()) == 2 * verdict["written"]
    assert verdict["outage"] == "ap-southeast-2"
    assert verdict["catch_up_s"] > 0
    assert verdict["events_per_s"] > 0
    assert_nothing_is_left(run)


@linux_only
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "moment", "status"), [(signal.SIGINT, "writing", 130), (signal.SIGTERM, "starting", 143)]
)
def test_an_interrupted_demo_leaves_no_process_and_no_file_behind(
    demo: Callable[..., DemoProcess], number: signal.Signals, moment: str, status: int
) -> None:
    run = demo("--seconds", "60", "--output", "json")
    run.read_until(moment)
    if moment == "writing":
        assert len(run.children()) == 3 * (1 + 1 + 2)
    run.send(number)
    assert run.finish()[0] == status
    assert_nothing_is_left(run)


@linux_only
@pytest.mark.slow
def test_a_worker_that_ends_by_itself_fails_the_demo_and_its_log_is_shown(
    demo: Callable[..., DemoProcess],
) -> None:
    run = demo("--seconds", "60")
    run.read_until("writing")
    worker = next(pid for pid, command in run.children().items() if "replicator run" in command)
    os.kill(worker, signal.SIGTERM)
    status, output = run.finish()
    assert status == 1
    assert "ended by itself" in output
    assert "worker.stopped" in output
    assert_nothing_is_left(run)


# --- the environment ---------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_link_cut_in_one_direction_delays_only_its_own_events_and_loses_none(tmp_path: Path) -> None:
    one, other = regions = ("us-east-1", "eu-west-1")
    layout = Layout(regions=regions, workers=1, shards=1)
    async with Environment(layout, tmp_path) as environment:
        await environment.start_workers()
        script = Script(seconds=6, events=1200, table_events=0, victim=None, crash_workers=False, flush_redis=False)
        view = View(Console(file=io.StringIO()))
        async with Run(environment, script, view, random.Random(7)) as run, asyncio.timeout(DEADLINE_S):
            _, states = await asyncio.gather(run.perform(), cut_and_heal(environment, one, other))
        hubs = {
            region: await asyncio.to_thread(read_hub, parts.ready.kinesis, region, layout.stream)
            for region, parts in environment.regions.items()
        }
        verdict = judge(run.written, hubs)
    assert states == ("backing_off", "up")
    assert verdict.clean, verdict
    assert verdict.written == 1200


async def cut_and_heal(environment: Environment, one: str, other: str) -> tuple[str, str]:
    """Cut the way from ``one`` to ``other``; the states of the links there and back meanwhile."""
    await reaches(environment, one, lambda forwarded, _: forwarded > 0)
    environment.cut_link(one, other)
    there = await reaches(environment, one, lambda _, state: state == "backing_off")
    _, before = await link_of(environment, other)
    back = await reaches(environment, other, lambda forwarded, _: forwarded > before)
    environment.heal_link(one, other)
    return there, back


async def reaches(environment: Environment, region: str, is_so: Callable[[int, str], bool]) -> str:
    """Poll the region's only link until that is so of its count and state; the state then."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            state, forwarded = await link_of(environment, region)
            if is_so(forwarded, state):
                return state
            await asyncio.sleep(POLL_S)


async def link_of(environment: Environment, region: str) -> tuple[str, int]:
    status = await environment.status(environment.workers(region)[0])
    assert status is not None
    (link,) = status.links.values()
    return link.state, link.counts.get("events_forwarded_total", 0)


# --- the producers -----------------------------------------------------------------------------------------


async def test_producers_keep_the_order_of_keys_and_repeat_nothing_that_may_be_stored(
    kinesis_url: str, new_name: Callable[[str], str]
) -> None:
    stream = new_name("produced")
    make_stream(kinesis_url, stream)
    await asyncio.to_thread(
        inject,
        kinesis_url,
        {"kind": "fail_entries", "stream": stream, "probability": 0.3, "fraction": 0.5},
        {"kind": "shuffle_entries", "stream": stream},
        {"kind": "throttle", "operation": "PutRecords", "stream": stream, "probability": 0.05},
        {"kind": "drop_before", "operation": "PutRecords", "stream": stream, "count": 1},
        {"kind": "drop_after", "operation": "PutRecords", "stream": stream, "count": 2},
    )
    ledger = Ledger()
    client = StreamClient(kinesis_url, REGION, stream)
    producer = Producer(client, REGION, 600, ledger, keys=Keys(hot=4, hot_share=0.2, cold=200), rng=random.Random(3))
    await producer.run(1.0)
    client.close()
    hub = await asyncio.to_thread(read_hub, kinesis_url, REGION, stream)
    stored = [json.loads(record.data) for shard in hub for record in shard]
    by_key: dict[str, list[int]] = defaultdict(list)
    for event in stored:
        by_key[event["key"]].append(event["key_seq"])
    assert all(numbers == sorted(set(numbers)) for numbers in by_key.values())
    verdict = judge(ledger.events, {REGION: hub})
    assert verdict.clean, verdict
    lost = [event for event in ledger.events if not event.is_acknowledged]
    assert ledger.unknown == len(lost) > 0
    assert len({event.id for event in ledger.events}) == len(ledger.events) == 600 + len(lost)
    assert 600 < verdict.written < 600 + len(lost)  # the first lost request never arrived, the others did


async def test_a_paused_producer_sends_nothing_and_makes_up_for_it_afterwards(
    kinesis_url: str, new_name: Callable[[str], str]
) -> None:
    stream = new_name("paused")
    make_stream(kinesis_url, stream)
    ledger = Ledger()
    client = StreamClient(kinesis_url, REGION, stream)
    producer = Producer(client, REGION, 100, ledger, keys=Keys(), rng=random.Random(3))
    producer.pause()
    async with asyncio.timeout(DEADLINE_S):
        running = asyncio.create_task(producer.run(0.1))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(running), 0.3)
        assert ledger.events == []
        producer.resume()
        await running
    client.close()
    assert len(ledger.events) == 100


def make_stream(url: str, stream: str) -> None:
    client = kinesis_client(url, REGION)
    client.create_stream(StreamName=stream, ShardCount=2)
    client.close()


def inject(url: str, *rules: dict[str, object]) -> None:
    request = urllib.request.Request(f"{url}/_dev/faults?seed=11", data=json.dumps(rules).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=10) as reply:
        assert reply.status == 200
