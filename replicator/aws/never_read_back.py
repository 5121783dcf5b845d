"""The part of `ports.Sink` that is the same for all sinks in which nothing can be, or need be, looked up."""

from collections.abc import Callable, Collection
from typing import ClassVar

from replicator.core.model import Origin
from replicator.ports import Found


class NeverReadBack:
    """A base of sinks; ``why`` says to people why nothing is read back."""

    why: ClassVar[str] = ""

    async def read_back(
        self,
        since_ms: int,  # noqa: ARG002 - given by the port, as what follows
        origin_of: Callable[[bytes], Origin | None],  # noqa: ARG002
        *,
        records_max: int,  # noqa: ARG002
        bytes_max: int | None = None,  # noqa: ARG002
        until_ms: int | None = None,  # noqa: ARG002
        keys: Collection[str] | None = None,  # noqa: ARG002
    ) -> Found:
        """Nothing, which proves nothing."""
        return Found(frozenset(), is_complete=False, records_read=0, why=self.why)
