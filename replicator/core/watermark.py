"""The watermark: everything at or before it is done, contiguous, never skipping.

How it works: spans (runs of consecutive records) are opened in source order and finished in any order. The watermark
is the end of the longest prefix of finished spans.

Why it is safe: the only way to move it is to finish the oldest open span, so a checkpoint taken from it can't pass an
event that is not done, however late that event's span is finished.
"""

from collections import deque
from typing import Generic, Protocol, TypeVar

from replicator.core.model import After, Position, SequenceNumber, ShardEnd


class Span(Protocol):
    """A run of records: ``end`` is the position behind the last one, ``is_finished`` turns true once and stays."""

    @property
    def end(self) -> Position: ...

    @property
    def is_finished(self) -> bool: ...


S = TypeVar("S", bound=Span)


class Watermark(Generic[S]):
    """Open spans in source order and the position behind the last contiguous finished one."""

    def __init__(self, start: Position) -> None:
        self.position = start
        self.open: deque[S] = deque()

    def add(self, span: S) -> None:
        """Open the span that follows the last one added."""
        self.open.append(span)

    def advance(self) -> bool:
        """Drop finished spans from the front; true when the position moved."""
        moved = False
        while self.open and self.open[0].is_finished:
            self.position = self.open.popleft().end
            moved = True
        return moved


def furthest(checkpoint: Position, proven: SequenceNumber) -> Position:
    """Where to go on: the checkpoint, or behind ``proven`` when the claim store proves more done (0: nothing).

    Both are watermarks of the same shard incarnation, so the later of the two is true whenever either is.
    """
    match checkpoint:
        case ShardEnd():
            return checkpoint
        case After(sequence=sequence) if sequence >= proven:
            return checkpoint
    return After(proven) if proven else checkpoint
