"""Processes for tests that start from one that has imported everything: real ones, in a tenth of the processor time.

Of the time of a test run a third went into the imports of some four hundred workers and AWS processes, always the
same. A `WarmModule` imports once, in a process of its own, and forks for each start: the child has a process id,
standard streams, an environment, a session and signals of its own, runs ``python -m MODULE`` from its first line, and
dies with us as others do. What starts cold in the tests stays so: the demo and the measured start.

    python -m tests.warm_start FD MODULE IMPORT...

serves requests from the socket FD: one message each, with the child's standard streams and the channel on which to
answer: its process id, and later its exit code.

    python -m tests.warm_start run MODULE ARGUMENT...

runs a module whose own children start that way.
"""

import gc
import importlib
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Self

import msgspec
from botocore.loaders import JSONFileLoader
from botocore.session import get_session

from replicator.dev.processes import Child, Process, cold_start, die_with

SERVICES = ("dynamodb", "dynamodbstreams", "events", "kinesis", "s3", "sqs", "sts")
WARM = {
    "replicator": (
        "replicator.cli",
        "replicator.bootstrap",
        "replicator.bootstrap_command",
        "replicator.filter_command",
        "replicator.quarantine_commands",
        "replicator.quarantine_view",
        "replicator.redrive_command",
        "replicator.replay_command",
    ),
    "replicator.dev.aws": (
        "replicator.dev.certificate",
        "replicator.dev.kinesis_endpoint",
        "replicator.dev.launch",
        "replicator.dev.moto_server",
        *(f"moto.{service}.urls" for service in SERVICES if service != "kinesis"),
    ),
}
REQUEST_BYTES_MAX = 1 << 18
ROOT = Path(__file__).resolve().parent.parent


class Request(msgspec.Struct):
    """What a child gets."""

    arguments: list[str]
    variables: dict[str, str]
    directory: str


class WarmProcess:
    """A child of the warm process, with the part of Popen's interface that `Child` uses."""

    def __init__(self, channel: socket.socket, stdin: BinaryIO) -> None:
        self._channel = channel
        self._lock = Lock()
        self.stdin = stdin
        self.pid = int(channel.recv(32))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with self._lock:
            if self.returncode is None and select.select([self._channel], [], [], 0)[0]:
                self.returncode = int(self._channel.recv(32))
                self._channel.close()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not select.select([self._channel], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("a warm process", timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WarmModule:
    """Starts ``python -m MODULE``; the process that forks is started with the first."""

    def __init__(self, module: str, *imports: str) -> None:
        self._module = module
        self._imports = imports
        self._requests: socket.socket | None = None

    def start(self, arguments: Sequence[str], output: BinaryIO, variables: Mapping[str, str]) -> Process:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stdin, our_end = os.pipe()
        request = msgspec.msgpack.encode(Request(list(arguments), dict(variables), os.getcwd()))
        socket.send_fds(self._connected(), [request], [theirs.fileno(), stdin, output.fileno()])
        theirs.close()
        os.close(stdin)
        return WarmProcess(ours, open(our_end, "wb", buffering=0))

    def _connected(self) -> socket.socket:
        if self._requests is None:
            self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            command = [sys.executable, "-m", "tests.warm_start", str(theirs.fileno()), self._module, *self._imports]
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], start_new_session=True)
            theirs.close()
        return self._requests

    def close(self) -> None:
        """End the warm process, and with it whatever still runs of its children."""
        if self._requests is not None:
            self._requests.close()
            self._process.wait()


class WarmStart:
    """Takes the place of `cold_start` for the commands of its modules."""

    def __init__(self) -> None:
        self._modules = {name: WarmModule(name, *imports) for name, imports in WARM.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for module in self._modules.values():
            module.close()

    def start(self, argv: Sequence[str], output: BinaryIO, variables: Mapping[str, str]) -> Process:
        if [*argv[:2]] == [sys.executable, "-m"] and (module := self._modules.get(argv[2])):
            return module.start(argv[3:], output, variables)
        return cold_start(argv, output, variables)


def serve(requests: int) -> Request | None:
    """Fork for each request. Returns in the children, with what to run, and None in the parent at the end."""
    channels: dict[int, tuple[int, int]] = {}
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready != requests:
                poll.unregister(ready)
                pid, channel = channels.pop(ready)
                os.close(ready)
                _tell(channel, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                os.close(channel)
                continue
            with socket.socket(fileno=os.dup(requests)) as receiver:
                message, streams, _, _ = socket.recv_fds(receiver, REQUEST_BYTES_MAX, 3)
            if not message:
                return None
            request = msgspec.msgpack.decode(message, type=Request)
            channel, stdin, output = streams
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                _become(request, stdin, output, parent)
                return request
            os.close(stdin)
            os.close(output)
            _tell(channel, pid)
            pidfd = os.pidfd_open(pid)
            channels[pidfd] = (pid, channel)
            poll.register(pidfd, select.POLLIN)


def _tell(channel: int, number: int) -> None:
    with suppress(BrokenPipeError):  # Whoever asked no longer wants to know.
        os.write(channel, b"%d" % number)


def _become(request: Request, stdin: int, output: int, parent: int) -> None:
    os.setsid()
    die_with(parent)
    os.dup2(stdin, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(request.variables)
    os.chdir(request.directory)


def read_descriptions(services: Sequence[str]) -> None:
    """Have botocore's descriptions of services read and decoded here, once for all children."""
    JSONFileLoader.load_file = staticmethod(cache(JSONFileLoader().load_file))
    for service in services:
        get_session().create_client(service, region_name="us-east-1")


def main() -> None:
    requests, module, *arguments = sys.argv[1:]
    if requests == "run":
        with WarmStart() as warm:
            Child.start = warm.start  # type: ignore[method-assign]
            sys.argv[1:] = arguments
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        become_warm(int(requests), module, arguments)


def become_warm(requests: int, module: str, imports: Sequence[str]) -> None:
    for name in imports:
        importlib.import_module(name)
    read_descriptions(SERVICES)
    gc.freeze()  # Collections in the children need not go through it, nor copy it.
    request = serve(requests)
    if request is not None:
        sys.argv[1:] = request.arguments
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
