"""Our signatures are those of botocore, byte for byte."""

import string
from datetime import UTC, datetime

import botocore.auth
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import given
from hypothesis import strategies as st

from replicator.aws.signer import Credentials, Signer, body_hash
from replicator.aws.transport import JSON_1_0, JSON_1_1, host_of

PRINTABLE = st.text(string.ascii_letters + string.digits + "+/=", min_size=1, max_size=60)
_FIRST, _LAST = datetime(2000, 1, 1), datetime(2099, 12, 31)  # noqa: DTZ001 - Hypothesis wants naive bounds
TIMES = st.datetimes(_FIRST, _LAST, timezones=st.just(UTC))
URLS = st.sampled_from(
    [
        "https://kinesis.us-east-1.amazonaws.com",
        "https://kinesis-fips.us-gov-west-1.amazonaws.com:443",
        "http://127.0.0.1:4566",
        "http://LocalHost:80",
        "http://[::1]:4566",
        "https://vpce-0a1b-x.kinesis.eu-central-1.vpce.amazonaws.com",
    ]
)
CREDENTIALS = st.builds(Credentials, PRINTABLE, PRINTABLE, st.none() | PRINTABLE)
REGIONS = st.sampled_from(["us-east-1", "eu-west-1", "ap-southeast-2", "cn-north-1"])
CALLS = st.sampled_from(
    [
        ("kinesis", "Kinesis_20131202.PutRecords", JSON_1_1),
        ("kinesis", "Kinesis_20131202.GetRecords", JSON_1_1),
        ("dynamodb", "DynamoDB_20120810.DescribeTable", JSON_1_0),
        ("dynamodb", "DynamoDBStreams_20120810.GetRecords", JSON_1_0),
        ("sqs", "AmazonSQS.ReceiveMessage", JSON_1_0),
        ("sqs", "AmazonSQS.SendMessageBatch", JSON_1_0),
        ("events", "AWSEvents.PutEvents", JSON_1_1),
    ]
)
"""Service, target and content type."""


def by_botocore(
    url: str, region: str, call: tuple[str, str, str], body: bytes, at: datetime, credentials: Credentials
) -> dict[str, str]:
    service, target, content_type = call
    headers = {"Content-Type": content_type, "X-Amz-Target": target}
    request = AWSRequest("POST", url + "/", headers=headers, data=body)
    theirs = BotocoreCredentials(credentials.access_key, credentials.secret_key, credentials.token)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: at)
        SigV4Auth(theirs, service, region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


@given(URLS, REGIONS, CALLS, st.binary(max_size=300), TIMES, CREDENTIALS)
def test_headers_are_those_of_botocore(
    url: str, region: str, call: tuple[str, str, str], body: bytes, at: datetime, credentials: Credentials
) -> None:
    service, target, content_type = call
    signer = Signer(host_of(url), region, service, content_type)
    ours = signer.headers(target, body_hash(body), at.timestamp(), credentials)
    assert ours.pop("host") == host_of(url)
    assert ours == by_botocore(url, region, call, body, at, credentials)


@given(st.lists(st.tuples(TIMES, CREDENTIALS), min_size=1, max_size=6))
def test_a_signer_that_was_used_before_signs_as_a_new_one(uses: list[tuple[datetime, Credentials]]) -> None:
    """The kept signing key is only used for its own day and secret."""
    used = Signer("host", "us-east-1", "kinesis", JSON_1_1)
    for at, credentials in uses:
        new = Signer("host", "us-east-1", "kinesis", JSON_1_1)
        arguments = ("t", body_hash(b""), at.timestamp(), credentials)
        assert used.headers(*arguments) == new.headers(*arguments)


def test_the_date_is_the_callers() -> None:
    """A request can be signed for the past, so that its receiver refuses it early."""
    signer = Signer("host", "us-east-1", "kinesis", JSON_1_1)
    headers = signer.headers("t", body_hash(b""), 1_700_000_000.9, Credentials("id", "secret"))
    assert headers["x-amz-date"] == "20231114T221320Z"


def test_printed_credentials_carry_no_secret() -> None:
    assert "hush" not in repr(Credentials("id", "hush", "hush-token"))
