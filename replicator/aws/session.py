"""Credentials and endpoints as botocore finds them: environment, profile, task role; FIPS, dual-stack."""

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self

import aioboto3
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentialResolver, AioCredentials
from aiobotocore.session import get_session
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, CredentialRetrievalError, NoCredentialsError

from replicator.aws.credentials import Keeper
from replicator.aws.signer import Credentials
from replicator.errors import Misconfigured, TransientError


class AwsSession:
    """One per process, closed by whoever made it. Rare calls get aioboto3's clients; the direct path, credentials."""

    def __init__(self, keeper: Keeper | None = None) -> None:
        self._keeper = keeper or Keeper()
        session = get_session()
        session.register_component("credential_provider", AioCredentialResolver([_Provider(self._keeper)]))
        self._session = aioboto3.Session(botocore_session=session)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._keeper.close()

    async def credentials(self, *, refused: Credentials | None = None) -> Credentials:
        """Valid credentials; newly resolved when the last ones are those the service ``refused`` as expired.

        Raises Misconfigured when none can be found or read, TransientError when their provider is away.
        """
        return (await self._keeper.get(refused)).credentials

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
            service,
            region_name=region,
            endpoint_url=endpoint or None,
            config=config,
            # Where there is no TLS the certificates need not be read: 18 ms a client.
            verify=False if (endpoint or "").startswith("http:") else None,
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


class _Provider:
    """Where the clients' credentials come from, as botocore's sessions want it."""

    METHOD = "replicator"

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def load(self) -> AioCredentials:
        return _Shared(self._keeper)


class _Shared(AioCredentials):  # type: ignore[misc]  # aiobotocore has no types
    """What clients sign with: the same credentials, under the same rule. Raises botocore's errors, as they expect."""

    def __init__(self, keeper: Keeper) -> None:
        super().__init__("", "", method=_Provider.METHOD)
        self._keeper = keeper

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        try:
            held = await self._keeper.get()
        except Misconfigured as exc:
            raise NoCredentialsError from exc
        except TransientError as exc:
            raise CredentialRetrievalError(provider=self.method, error_msg=str(exc)) from exc
        known = held.credentials
        return ReadOnlyCredentials(known.access_key, known.secret_key, known.token, held.account_id)

    async def get_account_id(self) -> str | None:
        account_id: str | None = (await self.get_frozen_credentials()).account_id
        return account_id
