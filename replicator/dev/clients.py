"""boto3 for producers and checkers: nothing of the worker's own way to AWS, nothing of the user's account."""

from typing import Any

import boto3
from botocore.config import Config


def kinesis_client(url: str, region: str, **options: object) -> Any:
    """A blocking Kinesis client of its own session, so that threads may make one each; close it."""
    return _client("kinesis", url, region, options)


def dynamodb_client(url: str, region: str, **options: object) -> Any:
    """The same for DynamoDB."""
    return _client("dynamodb", url, region, options)


def _client(service: str, url: str, region: str, options: dict[str, object]) -> Any:
    session = boto3.session.Session(aws_access_key_id="test", aws_secret_access_key="test")  # noqa: S106 - the emulator's published credential guards nothing
    config = Config(proxies={}, **options)
    return session.client(service, endpoint_url=url, region_name=region, config=config)
