"""What a failed call to AWS means for delivery: pure, one decision per answer.

How it works: an error answer with a 4xx status and a code means that the service refused and did nothing.
Everything else that comes back after the request may have left (a 5xx, an answer that isn't the service's, no
answer at all) tells nothing about the effect: harmless for a read, in doubt for a write.

Why 5xx is never "no effect": botocore's model of PutRecords lists InternalFailureException as a fault of the
service ("an unknown error, exception, or failure") and knows no 503: nothing promises that nothing was stored.
"""

import msgspec
from msgspec import Struct

from replicator.errors import InDoubt, Misconfigured, Refused, ReplicatorError, TransientError

THROTTLED = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "ThrottlingException",
        "Throttling",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "KmsThrottled",
        "KMSThrottlingException",
    }
)
BUSY = frozenset({"ResourceInUseException", "TransactionConflictException"})
"""Over by itself: a stream is being made or resharded, an item is in somebody's transaction."""
OVER_LIMIT = "over_limit"
"""Code of the error when a queue has too many messages that were received and not deleted (`sqs_api.IN_FLIGHT_MAX`)."""
CALLERS_OWN = frozenset(
    {
        "ValidationException",
        "InvalidArgumentException",
        "SerializationException",
        "ExpiredIteratorException",
        "ExpiredNextTokenException",
        "TrimmedDataAccessException",
        "BatchRequestTooLong",
        "ConditionalCheckFailedException",
        "InvalidMessageContents",
        "InvalidParameterValue",
        "TooManyEntriesInBatchRequest",
    }
)
"""Codes about the request itself; what they mean is for the adapter to say."""
EXPIRED = frozenset({"ExpiredTokenException", "ExpiredToken"})
"""The credentials; new ones may help."""
ADVICE = (
    ("AccessDenied", "allow the role of the task this action on this resource"),
    ("ResourceNotFound", "create it, or correct its name and region in the configuration"),
    ("QueueDoesNotExist", "create it, or correct its name and region in the configuration"),
    ("UnrecognizedClient", "check the credentials and the region they are valid for"),
    ("InvalidClientTokenId", "check the credentials and the region they are valid for"),
    ("ExpiredToken", "renew the credentials"),
    ("MissingAuthenticationToken", "check the credentials"),
    ("KMS", "check the state of the stream's KMS key, and that the role of the task may use it"),
)
"""By how the code begins."""
LATE = "late"
"""Code of the error when a request of a chosen date came after the service took it: no effect, date it anew."""


class ServiceError(Refused):
    """A refusal of the request itself; ``code`` is the vendor's, ``body`` its whole answer."""

    def __init__(self, code: str, message: str, body: bytes | bytearray = b"") -> None:
        super().__init__(message)
        self.code = code
        self.body = body


class Asked(Struct, frozen=True):
    """A request as far as its failure is concerned.

    ``sent_ms`` is our wall clock when it was sent. ``is_dated``: its signature has a date of the caller's choice, which
    tells nothing of our clock and may expire on the way.
    """

    operation: str
    where: str
    is_write: bool
    sent_ms: int
    is_dated: bool = False


class Answer(Struct, frozen=True):
    """What came back. ``error_type`` is the header x-amzn-errortype, ``date_ms`` the header Date."""

    status: int
    body: bytes | bytearray
    error_type: str = ""
    date_ms: int | None = None


class _ErrorBody(Struct):
    type: str = msgspec.field(name="__type", default="")
    message: str | None = None
    Message: str | None = None


def unknown_effect(asked: Asked, what: str) -> ReplicatorError:
    """The request may have left, nobody says what became of it: InDoubt for a write, else TransientError."""
    text = f"{asked.operation} to {asked.where}: no usable answer ({what})"
    if asked.is_write:
        return InDoubt(text, sent_ms=asked.sent_ms)
    return TransientError(text, code="no_answer")


def failure(asked: Asked, answer: Answer) -> ReplicatorError:
    """What an answer other than 200 means."""
    code, message = _code_and_message(answer)
    said = f"{answer.status} {code} {message}".strip()
    text = f"{asked.operation} to {asked.where}: {said}"
    if answer.status == 413:
        return ServiceError(code or "RequestEntityTooLarge", text)
    if not 400 <= answer.status < 500 or not code:
        return unknown_effect(asked, said)
    if code in CALLERS_OWN:
        return ServiceError(code, text, answer.body)
    if passing := _passing(asked, code, message):
        return TransientError(text, code=passing)
    return Misconfigured(f"{text}; {_advice(code, asked, answer)}", code=code)


def _code_and_message(answer: Answer) -> tuple[str, str]:
    """``__type`` reads ``namespace#Code:address``, namespace and address optional (as botocore parses it)."""
    try:
        body = msgspec.json.decode(answer.body, type=_ErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = _ErrorBody(message=answer.body[:200].decode("utf-8", "replace"))
    code = (body.type or answer.error_type).partition(":")[0].rpartition("#")[2]
    return code, body.message or body.Message or ""


def _passing(asked: Asked, code: str, message: str) -> str:
    """Our code for a refusal that is over by itself; empty for any other."""
    if code == "OverLimit":
        return OVER_LIMIT
    if code in THROTTLED:
        return "throttled"
    if code in BUSY:
        return "busy"
    return LATE if asked.is_dated and _has_expired(code, message) else ""


def _has_expired(code: str, message: str) -> bool:
    """AWS: "Signature expired: <date> is now earlier than <now> (<now + 5 min> - 5 min.)"; some say RequestExpired, and
    SQS has called it SignatureDoesNotMatch."""
    is_of_signature = code.startswith(("InvalidSignature", "SignatureDoesNotMatch"))
    return code == "RequestExpired" or (is_of_signature and "expired" in message.lower())


def _advice(code: str, asked: Asked, answer: Answer) -> str:
    if code.startswith("InvalidSignature") and answer.date_ms is not None:
        ahead_s = (answer.date_ms - asked.sent_ms) / 1000
        return f"the service's clock is {ahead_s:+.0f} s from this machine's; check it, then the secret key"
    found = (advice for prefix, advice in ADVICE if code.startswith(prefix))
    return next(found, "see the service's message")
