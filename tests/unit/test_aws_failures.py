"""What an answer of AWS, or none, means for delivery."""

import json

import pytest

from replicator.aws.failures import LATE, Answer, Asked, ServiceError, failure, unknown_effect
from replicator.errors import InDoubt, Misconfigured, ReplicatorError, TransientError

READ = Asked("GetRecords", "kinesis in eu-west-1", is_write=False, sent_ms=1_000_000)
WRITE = Asked("PutRecords", "kinesis in eu-west-1", is_write=True, sent_ms=1_000_000)


def answer(status: int, code: str = "", message: str = "because") -> Answer:
    return Answer(status, json.dumps({"__type": code, "message": message}).encode())


@pytest.mark.parametrize(
    "code",
    [
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "ThrottlingException",
        "RequestLimitExceeded",
        "KMSThrottlingException",
    ],
)
def test_throttling_had_no_effect(code: str) -> None:
    for asked in (READ, WRITE):
        error = failure(asked, answer(400, code))
        assert type(error) is TransientError
        assert error.code == "throttled"


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("AccessDeniedException", "role"),
        ("ResourceNotFoundException", "name and region"),
        ("UnrecognizedClientException", "credentials"),
        ("ExpiredTokenException", "renew"),
        ("KMSDisabledException", "KMS key"),
        ("KMSNotFoundException", "KMS key"),
        ("SomethingNewException", "message"),
    ],
)
def test_what_an_operator_must_remove_says_what_to_do(code: str, advice: str) -> None:
    error = failure(WRITE, answer(400, code))
    assert isinstance(error, Misconfigured)
    assert error.code == code
    assert advice in str(error)
    assert "PutRecords to kinesis in eu-west-1: 400" in str(error)


def test_a_refused_signature_names_the_offset_of_the_clocks() -> None:
    body = answer(400, "InvalidSignatureException").body
    error = failure(WRITE, Answer(400, body, date_ms=1_000_000 + 400_000))
    assert isinstance(error, Misconfigured)
    assert "+400 s" in str(error)


EXPIRED = "Signature expired: 20231114T220819Z is now earlier than 20231114T221320Z (20231114T221820Z - 5 min.)"


@pytest.mark.parametrize(
    ("code", "message"), [("InvalidSignatureException", EXPIRED), ("RequestExpired", "Request has expired.")]
)
def test_a_date_of_our_choice_that_expired_on_the_way_is_no_matter_for_an_operator(code: str, message: str) -> None:
    """The request had no effect, and is dated anew; with a date of now it would be our clock that is off."""
    asked = Asked("PutRecords", "kinesis in eu-west-1", is_write=True, sent_ms=1_000_000, is_dated=True)
    error = failure(asked, answer(400, code, message))
    assert type(error) is TransientError
    assert error.code == LATE
    assert isinstance(failure(WRITE, answer(400, code, message)), Misconfigured)


def test_a_wrong_signature_of_a_chosen_date_is_not_taken_for_an_expired_one() -> None:
    asked = Asked("PutRecords", "kinesis in eu-west-1", is_write=True, sent_ms=1_000_000, is_dated=True)
    error = failure(asked, answer(400, "InvalidSignatureException", "The signature we calculated does not match."))
    assert isinstance(error, Misconfigured)


@pytest.mark.parametrize("code", ["ValidationException", "InvalidArgumentException", "SerializationException"])
def test_an_invalid_request_is_refused(code: str) -> None:
    error = failure(WRITE, answer(400, code))
    assert isinstance(error, ServiceError)
    assert error.code == code


def test_a_body_too_large_for_the_front_door_is_refused() -> None:
    assert isinstance(failure(WRITE, Answer(413, b"<html>")), ServiceError)


@pytest.mark.parametrize(
    "unclear",
    [
        answer(500, "InternalFailure"),
        answer(503, "ServiceUnavailable"),
        answer(503, "ThrottlingException"),
        Answer(502, b"<html>Bad Gateway"),
        Answer(400, b"<html>not the service"),
        Answer(307, b""),
        Answer(200, b"", "InternalFailure"),
        Answer(504, b"\xff\xfe"),
    ],
)
def test_any_other_answer_leaves_a_write_in_doubt_and_a_read_to_repeat(unclear: Answer) -> None:
    in_doubt = failure(WRITE, unclear)
    assert isinstance(in_doubt, InDoubt)
    assert in_doubt.sent_ms == WRITE.sent_ms
    assert type(failure(READ, unclear)) is TransientError


def test_no_answer_is_in_doubt_for_a_write_only() -> None:
    def classes(asked: Asked) -> type[ReplicatorError]:
        return type(unknown_effect(asked, "reset"))

    assert (classes(WRITE), classes(READ)) == (InDoubt, TransientError)


@pytest.mark.parametrize(
    "given",
    [
        Answer(400, b'{"__type":"com.amazonaws.kinesis#ValidationException:http://x/"}'),
        Answer(400, b"", "ValidationException:http://x/"),
        Answer(400, b'{"__type":"ValidationException","Message":"m"}'),
        Answer(400, b'{"__type":"ValidationException","message":null}'),
    ],
)
def test_the_code_is_found_in_every_form_the_service_writes_it(given: Answer) -> None:
    error = failure(WRITE, given)
    assert isinstance(error, ServiceError)
    assert error.code == "ValidationException"
