"""Every error of ours, split by what the caller must do about it."""

from typing import TypeVar

E = TypeVar("E", bound=BaseException)


class ReplicatorError(Exception):
    """The root of all errors this package raises on purpose."""


class ConfigError(ReplicatorError):
    """The configuration is wrong; the message names file, line and what to write instead. Fix it and start again."""


class TransientError(ReplicatorError):
    """The call had no effect and may be repeated; wait ``retry_after_s`` first where the vendor said so."""

    def __init__(self, message: str, *, code: str = "unavailable", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s


class StoreUnavailable(TransientError):
    """A store of ours (claims, leases, quarantine) did not answer; whether a write took effect is not known."""


class InDoubt(ReplicatorError):
    """A publish may or may not have taken effect: the reply was lost after the request left.

    Sending again could duplicate; read the sink back first. ``sent_ms`` is our wall clock when it was signed.
    """

    def __init__(self, message: str, *, sent_ms: int) -> None:
        super().__init__(message)
        self.sent_ms = sent_ms


class Refused(ReplicatorError):
    """The peer will never accept this request, or this entry of one, as it is (validation).

    Split it, and quarantine what stays refused, under ``reason``.
    """

    def __init__(self, message: str, *, reason: str = "refused_by_peer") -> None:
        super().__init__(message)
        self.reason = reason


class Misconfigured(TransientError):
    """The vendor refuses for a reason an operator must remove (access denied, no such stream); keep trying, loudly."""


class PositionLost(ReplicatorError):
    """The source no longer has the record at this position (trimmed, or the stream was made anew).

    ``is_trimmed``: the source says that records behind the position are gone.
    """

    def __init__(self, message: str, *, is_trimmed: bool = False) -> None:
        super().__init__(message)
        self.is_trimmed = is_trimmed


class PoisonEvent(ReplicatorError):
    """The event can't be replicated as it is; it goes to quarantine under ``reason``, a short snake_case word."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def anew(self) -> "PoisonEvent":
        """Itself without a traceback. One that is kept and raised would keep all that its frames refer to."""
        return PoisonEvent(self.reason, self.detail)


class Fenced(ReplicatorError):
    """Another owner holds the lease or the claims now; stop this shard at once, settle and checkpoint nothing more."""


class ClaimsLost(ReplicatorError):
    """The claim store lost or rolled back its state; attach anew and treat what is not marked done as in doubt."""


def first_of(kind: type[E], group: BaseExceptionGroup[BaseException]) -> E | None:
    """The first error of this kind that the group holds, however deep; None without one."""
    for error in group.exceptions:
        found = first_of(kind, error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, kind):
            return found
    return None
