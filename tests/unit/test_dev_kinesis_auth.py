"""The endpoint takes what botocore signs, for five minutes, and nothing else."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from replicator.dev.kinesis_auth import Signed, Verifier
from replicator.dev.kinesis_wire import KinesisError

NOW_MS = 1_700_000_000_000
VERIFIER = Verifier("us-east-1", "test", "secret")


def signed(
    at_ms: int = NOW_MS,
    *,
    body: bytes = b"{}",
    region: str = "us-east-1",
    key_id: str = "test",
    secret: str = "secret",
    target: str = "Kinesis_20131202.PutRecord",
) -> Signed:
    """What botocore's own signer makes of a request, dated ``at_ms``."""
    headers = {"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1", "Host": "localhost:4567"}
    request = AWSRequest("POST", "http://localhost:4567/", headers=headers, data=body)
    request.context["timestamp"] = datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    auth = SigV4Auth(Credentials(key_id, secret), "kinesis", region)
    auth._modify_request_before_signing(request)
    text = auth.string_to_sign(request, auth.canonical_request(request))
    auth._inject_signature_to_request(request, auth.signature(text, request))
    return Signed("POST", "/", "", CIMultiDict(request.headers.items()), body)


def refusal(request: Signed, now_ms: int = NOW_MS) -> KinesisError:
    with pytest.raises(KinesisError) as refused:
        VERIFIER.check(request, now_ms)
    assert refused.value.status == 400
    return refused.value


@given(
    body=st.binary(max_size=200),
    target=st.text("abcXYZ. \t", min_size=1, max_size=20).map(lambda t: f"a{t}z"),
)
def test_whatever_botocore_signs_is_accepted(body: bytes, target: str) -> None:
    VERIFIER.check(signed(body=body, target=target), NOW_MS)


@pytest.mark.parametrize("age_s", [0, 299, 300, -299, -300])
def test_a_request_dated_within_five_minutes_is_accepted(age_s: int) -> None:
    VERIFIER.check(signed(NOW_MS - age_s * 1000), NOW_MS)


@pytest.mark.parametrize("seconds_past_midnight", [0, 1, 269, 270])
def test_a_date_of_yesterday_is_taken_within_five_minutes_under_yesterdays_scope(seconds_past_midnight: int) -> None:
    """The credential's scope goes by the date of the signature, not by the day on which the request arrives."""
    now_ms = NOW_MS // 86_400_000 * 86_400_000 + seconds_past_midnight * 1000
    VERIFIER.check(signed(now_ms - 270_000), now_ms)
    VERIFIER.check(signed(now_ms), now_ms)


def test_a_request_dated_301_seconds_back_has_expired() -> None:
    error = refusal(signed(NOW_MS - 301_000))
    assert error.code == "InvalidSignatureException"
    assert error.message == "Signature expired: 20231114T220819Z is now earlier than 20231114T221320Z - 5 min."


def test_a_request_dated_301_seconds_ahead_is_not_yet_current() -> None:
    error = refusal(signed(NOW_MS + 301_000))
    assert error.code == "InvalidSignatureException"
    assert "not yet current" in error.message


def test_a_changed_body_header_or_secret_breaks_the_signature() -> None:
    good = signed()
    renamed = CIMultiDict(good.headers)
    renamed["X-Amz-Target"] = "Kinesis_20131202.DeleteStream"
    for request in (replace(good, body=b"{ }"), replace(good, headers=renamed), signed(secret="other")):
        error = refusal(request)
        assert (error.code, "does not match" in error.message) == ("InvalidSignatureException", True)


def test_a_signature_for_another_region_is_refused() -> None:
    error = refusal(signed(region="eu-west-1"))
    assert error.code == "InvalidSignatureException"
    assert "us-east-1" in error.message


def test_an_unknown_key_id_is_refused() -> None:
    assert refusal(signed(key_id="stranger")).code == "UnrecognizedClientException"


def test_a_request_without_or_with_broken_authorization_misses_its_token() -> None:
    good = signed()
    for name, value in (("Authorization", ""), ("Authorization", "Basic x"), ("X-Amz-Date", "")):
        headers = CIMultiDict(good.headers)
        headers[name] = value
        assert refusal(replace(good, headers=headers)).code == "MissingAuthenticationTokenException"


def test_without_verification_the_date_is_still_checked() -> None:
    lenient = Verifier("us-east-1", "test", "secret", is_strict=False)
    lenient.check(signed(secret="other", region="eu-west-1"), NOW_MS)
    with pytest.raises(KinesisError, match="expired"):
        lenient.check(signed(), NOW_MS + 301_000)
