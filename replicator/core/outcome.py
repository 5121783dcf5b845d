"""What became of one entry that a sink was given."""

from typing import TypeAlias

from msgspec import Struct

from replicator.errors import Refused


class Passed(Struct, frozen=True):
    """The sink is done with it, though it did not store it.

    It is counted as dropped for this ``reason``; as `core.convergence.CONFLICT` it is reported with its bytes.
    """

    reason: str
    detail: str = ""


Outcome: TypeAlias = str | Refused | Passed | None
"""None when it is stored, else the vendor's error code (not stored, may be repeated), Refused when the sink will never
take it, or Passed."""
