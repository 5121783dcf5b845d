"""botocore for producers and checkers: nothing of the worker's own way to AWS, nothing of the user's account."""

from typing import Any

from botocore.config import Config
from botocore.loaders import Loader, create_loader
from botocore.session import get_session

LOADER: Loader = create_loader()
"""botocore's descriptions of services, read once for all sessions: 0.1 s of processor time a client."""


def kinesis_client(url: str, region: str, **options: object) -> Any:
    """A blocking Kinesis client of its own session, so that threads may make one each; close it."""
    return _client("kinesis", url, region, options)


def dynamodb_client(url: str, region: str, **options: object) -> Any:
    """The same for DynamoDB."""
    return _client("dynamodb", url, region, options)


def _client(service: str, url: str, region: str, options: dict[str, object]) -> Any:
    session = get_session()
    session.register_component("data_loader", LOADER)
    session.set_credentials("test", "test")
    config = Config(proxies={}, **options)
    return session.create_client(service, endpoint_url=url, region_name=region, config=config)
