"""What the regions are asked: the independent judge's numbers, once everything written had time to arrive."""

from chaos.controls import running


def faults(name: str) -> int:
    """How many events are ``lost``, ``looped``, ``duplicated``, ``reordered``, ``foreign`` or ``altered``."""
    return running().verdict().faults()[name]


def delivered() -> dict[str, int]:
    """Replicas in every region."""
    return dict(running().verdict().delivered)
