"""What the command line says, for all cases."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """``rounds``: of the matrix, beside one of warming up. ``scale``: times the events of every round."""

    rounds: int = 3
    is_quick: bool = False
    behind: int = 200_000
    """How many events the link of the case ``catch-up`` falls behind."""
    flat: int = 1_000_000
    """How many events go through the worker of the case ``flat``."""

    @property
    def scale(self) -> float:
        return 0.25 if self.is_quick else 1.0
