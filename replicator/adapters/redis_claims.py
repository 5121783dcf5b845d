"""Claims in Redis or Valkey: one script call a batch for claiming, one for settling.

A scope (one link on one shard of one source incarnation) has a meta hash, a hash of open batches, and window buckets;
all names share one hash tag, so a scope lives in one slot of a cluster and a script sees all of it. Done events are
kept as 16-byte digests in small hashes that stay listpacks, which is what keeps an event under 40 bytes.
"""

import hashlib
import secrets
from collections.abc import Collection
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from replicator.core.claims import CLAIM_BYTES
from replicator.core.model import SequenceNumber
from replicator.errors import ClaimsLost, Fenced, StoreUnavailable
from replicator.ports import ClaimScope, ClaimSession

FORMAT = "rr1"
META_KEPT_S = 7 * 24 * 3600
"""A scope nobody has touched for so long is forgotten; its next owner resolves by reading the sink back."""
CONNECTIONS_MAX = 32


class _Script:
    """One Lua file, called by its hash and loaded when the server does not know it."""

    def __init__(self, name: str) -> None:
        self.text = files("replicator.adapters").joinpath(f"{name}.lua").read_text(encoding="utf-8")
        self.sha = ""


class RedisClaims:
    """Implements `ports.ClaimStore`; made by `connect`, closed by whoever made it."""

    def __init__(self, client: Any, window_s: float) -> None:
        self._client = client
        self._window_ms = int(window_s * 1000)
        self._kept_ms = max(META_KEPT_S * 1000, 4 * self._window_ms)
        self._attach = _Script("redis_attach")
        self._claim = _Script("redis_claim")
        self._settle = _Script("redis_settle")

    async def close(self) -> None:
        await self._client.aclose()

    async def attach(self, scope: ClaimScope, epoch: int) -> ClaimSession:
        answer = await self._call(self._attach, scope, secrets.token_hex(8), epoch, self._kept_ms, self._window_ms)
        _, store, batch, open_batches, watermark, is_new, remembers_ms = [part.decode() for part in answer]
        return ClaimSession(
            scope,
            epoch,
            store,
            int(batch),
            int(open_batches),
            SequenceNumber(int(watermark)),
            is_new == "1",
            int(remembers_ms),
        )

    async def claim(self, session: ClaimSession, batch: int, claims: bytes) -> bytes:
        assert len(claims) % CLAIM_BYTES == 0
        scope = session.scope
        answer = await self._call(
            self._claim,
            scope,
            session.store,
            session.epoch,
            batch,
            claims,
            self._window_ms,
            _name(scope, "w:"),
        )
        verdicts: bytes = answer[1]
        return verdicts

    async def settle(
        self, session: ClaimSession, batch: int, undone: Collection[int], watermark: SequenceNumber
    ) -> None:
        scope = session.scope
        await self._call(
            self._settle,
            scope,
            session.store,
            session.epoch,
            batch,
            "".join(f"{index}," for index in undone),
            str(watermark),
            self._window_ms,
            _name(scope, "w:"),
            self._kept_ms,
        )

    async def forget(self, session: ClaimSession) -> None:
        """Buckets go by themselves when the window has passed."""
        try:
            await self._client.execute_command("DEL", _name(session.scope, "m"), _name(session.scope, "o"))
        except (RedisError, OSError, TimeoutError) as exc:
            raise StoreUnavailable(f"forgetting claims of {_text(session.scope)}: {exc}") from exc

    async def _call(self, script: _Script, scope: ClaimScope, *args: str | bytes | int) -> list[bytes]:
        try:
            answer = await self._evaluate(script, scope, args)
        except (RedisError, OSError, TimeoutError) as exc:
            raise StoreUnavailable(f"claims of {_text(scope)}: {type(exc).__name__} {exc}") from exc
        match answer[0]:
            case b"ok":
                return answer
            case b"fenced":
                raise Fenced(f"claims of {_text(scope)} are held under epoch {int(answer[1])}")
        raise ClaimsLost(f"claims of {_text(scope)} are lost: {answer[1].decode()}; attach anew")

    async def _evaluate(self, script: _Script, scope: ClaimScope, args: tuple[str | bytes | int, ...]) -> list[bytes]:
        keys = (_name(scope, "m"), _name(scope, "o"))
        answer: list[bytes]
        if script.sha:
            try:
                answer = await self._client.execute_command("EVALSHA", script.sha, 2, *keys, *args)
            except NoScriptError:
                script.sha = ""
            else:
                return answer
        # EVAL loads the script as well; its hash is what SHA-1 of the text gives.
        answer = await self._client.execute_command("EVAL", script.text, 2, *keys, *args)
        script.sha = _sha1(script.text)
        return answer


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _name(scope: ClaimScope, rest: str) -> str:
    return f"{FORMAT}:{{{scope.link}|{scope.shard}|{scope.incarnation}}}:{rest}"


def _text(scope: ClaimScope) -> str:
    return f"{scope.link} on {scope.shard}"


def connect(
    url: str,
    *,
    password: str | None = None,
    is_cluster: bool = False,
    tls_ca_file: str | None = None,
    timeout_s: float = 1.0,
    window_s: float = 3600.0,
) -> RedisClaims:
    """A client that makes one attempt a call: whether to repeat one is decided by who called."""
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "max_connections": CONNECTIONS_MAX,
        "retry": Retry(NoBackoff(), 0),
    }
    if password is not None:
        options["password"] = password
    if tls_ca_file is not None:
        options["ssl_ca_certs"] = tls_ca_file
    client: Any = RedisCluster.from_url(url, **options) if is_cluster else Redis.from_url(url, **options)
    return RedisClaims(client, window_s)
