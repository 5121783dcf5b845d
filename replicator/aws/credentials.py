"""The credentials in hand, renewed behind the calls that use them.

How it works: what the provider gave is used until it expires. A call that finds the provider not asked for a while
starts the one task that asks it, and does not wait for it; the provider itself knows when it is time to renew
(botocore: from 15 minutes before the expiry). Calls wait, all for the same asking, only where nothing is in hand, where
that has expired, and where the service refused it.

Why: a provider that is away (the agent of ECS, the metadata service of EC2) is known to be so after seconds, each time
anew, and botocore lets nobody sign in the last 10 minutes of credentials that are good to their end.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import aioboto3
import structlog
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    PartialCredentialsError,
    ProfileNotFound,
)
from msgspec import Struct

from replicator.aws.signer import Credentials
from replicator.errors import Misconfigured, TransientError

logger = structlog.get_logger(__name__)

ASKED_EVERY_S = 5.0
"""How often the provider is asked; most times it need not look anywhere for its answer."""


class InHand(Struct, frozen=True):
    """``until_s``: when they expire, in seconds since the epoch; None: never."""

    credentials: Credentials
    until_s: float | None = None
    account_id: str | None = None


class Keeper:
    """Of one process; closed by whoever made it. ``now_s`` is the wall clock."""

    def __init__(self, *, asked_every_s: float = ASKED_EVERY_S, now_s: Callable[[], float] = time.time) -> None:
        self._asked_every_s = asked_every_s
        self._now_s = now_s
        self._provider: Any = None  # aiobotocore's refreshable credentials have no public type
        self._held: InHand | None = None
        self._asked_s = 0.0
        self._asking: asyncio.Task[InHand] | None = None

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))

    async def get(self, refused: Credentials | None = None) -> InHand:
        """What may sign now, and is not ``refused`` if there is anything else. Raises Misconfigured, TransientError."""
        held = self._usable(refused)
        if held is None:
            return await self._waited(refused)
        if held.until_s is not None and time.monotonic() - self._asked_s >= self._asked_every_s:
            self._under_way()
        return held

    def _usable(self, refused: Credentials | None) -> InHand | None:
        held = self._held
        if held is None or held.credentials == refused:
            return None
        return held if held.until_s is None or self._now_s() < held.until_s else None

    async def _waited(self, refused: Credentials | None) -> InHand:
        if refused is not None:
            if self._asking is not None:
                # It may have begun before the refusal, at the provider that gave what was refused.
                await asyncio.wait((self._asking,))
                held = self._usable(refused)
                if held is not None:
                    return held
            if self._asking is None:
                # A session keeps the credentials it once resolved, so only a new one looks again.
                self._provider = None
        asking = self._under_way()
        await asyncio.wait((asking,))
        if asking.cancelled():
            raise TransientError("AWS credentials were not fetched: the session is closed", code="credentials")
        return asking.result()

    def _under_way(self) -> asyncio.Task[InHand]:
        """The one asking."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(self._asked)
        return self._asking

    def _asked(self, asking: asyncio.Task[InHand]) -> None:
        self._asking = None
        self._asked_s = time.monotonic()
        if asking.cancelled():
            return
        exc = asking.exception()
        if exc is None:
            self._held = asking.result()
        else:
            until_s = None if self._held is None else self._held.until_s
            left_s = None if until_s is None else round(until_s - self._now_s())
            logger.warning("credentials.not_renewed", error=str(exc), valid_for_s=left_s)

    async def _ask(self) -> InHand:
        try:
            if self._provider is None:
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
        # RuntimeError: the answer has expired already; ValueError and KeyError: it is none.
        except (BotoCoreError, ClientError, OSError, RuntimeError, ValueError, KeyError) as exc:
            raise TransientError(f"AWS credentials can't be fetched: {exc}", code="credentials") from exc
        # botocore has no public word for it; credentials that do not expire have no such attribute.
        expiry = getattr(self._provider, "_expiry_time", None)
        return InHand(
            Credentials(frozen.access_key, frozen.secret_key, frozen.token),
            None if expiry is None else expiry.timestamp(),
            frozen.account_id,
        )
