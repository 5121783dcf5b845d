"""How a worker starts where something is wrong: it says what, and does not stay for ever."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CONFIG = """
regions:
  us-east-1: {{endpoints: {{kinesis: "{aws}", dynamodb: "{aws}"}}}}
  eu-west-1: {{endpoints: {{kinesis: "{aws}"}}}}
sources: {{orders: {{stream: orders, sink: orders}}}}
sinks: {{orders: {{stream: orders}}}}
redis: {{url: "redis://127.0.0.1:1/0"}}
worker: {{http_port: 0, ready_within_s: 1}}
quarantine: {{directory: "{folder}"}}
"""
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.fixture
def closed_url() -> Iterator[str]:
    """Nobody listens there, and nobody else can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def run_with(text: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    file = folder / "replicator.yaml"
    file.write_text(text)
    command = [sys.executable, "-m", "replicator", "run", "--config", str(file), "--region", "us-east-1"]
    environment = {"PATH": os.environ["PATH"]} | CREDENTIALS | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_worker_that_never_becomes_ready_exits_and_says_why(tmp_path: Path, closed_url: str) -> None:
    done = run_with(CONFIG.format(aws=closed_url, folder=tmp_path), tmp_path)
    assert done.returncode == 1
    assert "did not become ready within 1 s of its start" in done.stderr
    assert closed_url.removeprefix("http://") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_tag_key_that_can_be_guessed_is_refused(tmp_path: Path, closed_url: str) -> None:
    text = CONFIG.format(aws=closed_url, folder=tmp_path) + "tag_key: {current: k1, keys: {k1: {env: TAG_K1}}}\n"
    done = run_with(text, tmp_path, TAG_K1="short")
    assert done.returncode == 1
    assert "tag_key: the secret of tag key 'k1' has 5 bytes" in done.stderr
    assert "openssl rand -base64 32" in done.stderr


def test_a_quarantine_that_takes_nothing_is_found_at_the_start(tmp_path: Path, closed_url: str) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    done = run_with(CONFIG.format(aws=closed_url, folder=in_the_way), tmp_path)
    assert done.returncode == 1
    assert f"quarantine.directory {in_the_way} can't be written" in done.stderr
    assert "Traceback" not in done.stderr
