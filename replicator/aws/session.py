"""Credentials and endpoints as botocore finds them: environment, profile, task role; FIPS, dual-stack."""

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from typing import Any

import aioboto3
from aiobotocore.config import AioConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    PartialCredentialsError,
    ProfileNotFound,
)

from replicator.aws.signer import Credentials
from replicator.errors import Misconfigured, TransientError

CREDENTIALS_FRESH_S = 5.0
"""How long credentials are used without asking the provider, which renews them well before they expire."""


class AwsSession:
    """One per process. Rare calls get aioboto3's clients; the direct path takes credentials only."""

    def __init__(self) -> None:
        self._session = aioboto3.Session()
        self._provider: Any = None  # aiobotocore's refreshable credentials have no public type
        self._frozen: Credentials | None = None
        self._frozen_s = 0.0
        self._lock = asyncio.Lock()

    async def credentials(self, *, refused: Credentials | None = None) -> Credentials:
        """Valid credentials; newly resolved when the last ones are those the service ``refused`` as expired.

        Raises Misconfigured when none can be found or read, TransientError when their provider is away.
        """
        return self._fresh(refused) or await self._renewed(refused)

    def _fresh(self, refused: Credentials | None) -> Credentials | None:
        is_fresh = time.monotonic() - self._frozen_s < CREDENTIALS_FRESH_S
        return self._frozen if is_fresh and self._frozen != refused else None

    async def _renewed(self, refused: Credentials | None) -> Credentials:
        async with self._lock:
            # Another call may have renewed them while this one waited.
            fresh = self._fresh(refused)
            if fresh is not None:
                return fresh
            if refused is not None and self._frozen == refused:
                self._provider = None
            self._frozen = await self._ask()
            self._frozen_s = time.monotonic()
            return self._frozen

    async def _ask(self) -> Credentials:
        try:
            if self._provider is None:
                # A session keeps the credentials it once resolved, so only a new one looks again.
                self._provider = await aioboto3.Session().get_credentials()
            if self._provider is None:
                raise Misconfigured(
                    "no AWS credentials found; give the task a role, or set AWS_ACCESS_KEY_ID and "
                    "AWS_SECRET_ACCESS_KEY",
                    code="no_credentials",
                )
            frozen = await self._provider.get_frozen_credentials()
        except (PartialCredentialsError, ProfileNotFound, ConfigParseError) as exc:
            raise Misconfigured(f"AWS credentials can't be read: {exc}", code="credentials") from exc
        # A provider that answers with credentials already expired raises RuntimeError.
        except (BotoCoreError, ClientError, OSError, RuntimeError) as exc:
            raise TransientError(f"AWS credentials can't be fetched: {exc}", code="credentials") from exc
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    def client(
        self, service: str, region: str, endpoint: str | None, *, timeout_s: float = 5.0
    ) -> AbstractAsyncContextManager[Any]:
        """A client for rare calls. It does not retry: what is safe to repeat, and when, is our decision."""
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
        """The URL the service has in the region: ``custom``, or what botocore resolves.

        Heeds AWS_USE_FIPS_ENDPOINT, AWS_USE_DUALSTACK_ENDPOINT and AWS_ENDPOINT_URL. Raises Misconfigured.
        """
        if custom:
            return custom
        try:
            async with self.client(service, region, None) as client:
                return str(client.meta.endpoint_url)
        except (BotoCoreError, ValueError) as exc:
            raise Misconfigured(f"no endpoint for {service} in {region}: {exc}", code="endpoint") from exc
