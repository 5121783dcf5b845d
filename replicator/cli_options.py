"""What several commands have in common: options, the values of options, and a word on the way."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from replicator.config_base import time_of


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def config_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, help="a file, or env:NAME for an environment variable that holds it")


def region_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--region", required=True, help="the region it is about, such as us-east-1")


def time_ms(text: str) -> int:
    try:
        return int(time_of(text).timestamp() * 1000)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


@contextmanager
def interruptible(afterwards: str = "the same command goes on from there") -> Iterator[None]:
    """Who interrupts it is told what comes of that."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted; {afterwards}")
        raise


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
