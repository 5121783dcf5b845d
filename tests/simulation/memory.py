"""Whether a worker's memory is bounded: judged from the first moment of a history on, not when all is over.

How much may be held follows from the settings and from what the source stores, not from what the worker computes:
queues hold what they are told and one span more, windows what they are told and one page more, a link that reads by
itself one page. All together hold the worker's budget, every copy counted, and a page and a span more for each holder,
because a page is asked for in records and sized by the records that were seen before.
"""

from collections.abc import Iterator

from replicator.worker.channel import Channel
from replicator.worker.service import Service
from replicator.worker.window import Window

from .scenario import RECORD_BYTES_MAX, Scenario

COPIES = 3
"""Read, cut for the tag, and about to leave."""


def judge(service: Service, plan: Scenario, largest_bytes: int) -> Iterator[str]:
    """What is too much. ``largest_bytes``: the largest record that the source holds."""
    page_bytes = plan.records_per_read * largest_bytes
    span_bytes = min(plan.span_records_max, plan.records_per_read) * max(largest_bytes, RECORD_BYTES_MAX * 2)
    held = bound = 0
    for runner in service._runners.values():
        yield from _judge_window(runner.log.window, plan)
        held += runner.log.window.size_bytes
        bound += page_bytes
        for channel in runner.channels.values():
            yield from _judge_channel(channel, plan, page_bytes, span_bytes)
            held += channel.open_bytes + channel.held_bytes
            bound += page_bytes + span_bytes
    if held * COPIES > plan.memory_bytes + bound * COPIES:
        yield f"{held * COPIES} bytes are held, of {plan.memory_bytes} and {bound * COPIES} for the pages under way"


def _judge_window(window: Window, plan: Scenario) -> Iterator[str]:
    if window.size_bytes != sum(page.size_bytes for page in window._pages):
        yield f"a window says it holds {window.size_bytes} bytes"
    if window.size_bytes > plan.window_bytes and len(window) > 1:
        yield f"a window of {window.size_bytes} bytes"


def _judge_channel(channel: Channel, plan: Scenario, page_bytes: int, span_bytes: int) -> Iterator[str]:
    if channel.open_bytes > plan.open_bytes_max + span_bytes:
        yield f"{channel.open_bytes} bytes are under way"
    if channel.held_bytes > page_bytes:
        yield f"{channel.held_bytes} bytes of a page are in hand"
    if len(channel._settlement.open) > plan.open_spans_max:
        yield f"{len(channel._settlement.open)} spans are open"
