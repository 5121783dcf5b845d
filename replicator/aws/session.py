"""Credentials and endpoints, as botocore finds them: environment, profile, ECS and EC2 roles; FIPS, dual-stack, custom."""

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from typing import Any

import aioboto3
from aiobotocore.config import AioConfig

from replicator.aws.signer import Credentials
from replicator.errors import Misconfigured, TransientError

CREDENTIALS_FRESH_S = 5.0
"""How long frozen credentials are used without asking again; the provider refreshes them well before they expire."""


class AwsSession:
    """One per process. Clients for everything rare come from aioboto3; the direct path takes credentials only."""

    def __init__(self) -> None:
        self._session = aioboto3.Session()
        self._credentials: Any = None  # aiobotocore's refreshable credentials have no public type
        self._frozen: Credentials | None = None
        self._frozen_s = 0.0
        self._lock = asyncio.Lock()

    async def credentials(self, *, is_stale: bool = False) -> Credentials:
        """Valid credentials; ``is_stale`` when the vendor said that the last ones had expired. Raises Misconfigured."""
        if (
            self._frozen is not None
            and not is_stale
            and time.monotonic() - self._frozen_s < CREDENTIALS_FRESH_S
        ):
            return self._frozen
        async with self._lock:
            if self._credentials is None or is_stale:
                self._credentials = await self._session.get_credentials()
            if self._credentials is None:
                raise Misconfigured(
                    "no AWS credentials found; give the task a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                    code="no_credentials",
                )
            frozen = await self._credentials.get_frozen_credentials()
            self._frozen = Credentials(frozen.access_key, frozen.secret_key, frozen.token)
            self._frozen_s = time.monotonic()
            return self._frozen

    def client(
        self, service: str, region: str, endpoint: str | None, *, timeout_s: float = 5.0
    ) -> AbstractAsyncContextManager[Any]:
        """A client for calls that are rare. It does not retry: what is safe to repeat, and when, is our decision."""
        config = AioConfig(
            connect_timeout=min(timeout_s, 3.0),
            read_timeout=timeout_s,
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=32,
        )
        client: AbstractAsyncContextManager[Any] = self._session.client(
            service, region_name=region, endpoint_url=endpoint or None, config=config
        )
        return client

    async def endpoint(self, service: str, region: str, custom: str | None) -> str:
        """The URL the service has in the region: ``custom``, or what botocore resolves. Raises TransientError."""
        if custom:
            return custom
        try:
            async with self.client(service, region, None) as client:
                return str(client.meta.endpoint_url)
        except Exception as exc:
            raise TransientError(f"no endpoint for {service} in {region}: {exc}", code="endpoint") from exc
