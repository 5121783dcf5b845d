"""Claims in Redis or Valkey: one script call for all that claims and settles at the same time.

A scope (one link on one shard of one source incarnation) has a meta hash, a hash of open batches, and window buckets.
All names of a shard share one hash tag, so its links live in one slot of a cluster and one script call serves them.
Done events are kept as 16-byte digests in small hashes that stay listpacks: so an event takes less than 40 bytes.

A claim goes at once, or when the call under way has ended, and takes all along that waits by then. A settlement that
nobody needs waits a moment for such a call. So a batch costs two calls when its links are done with it within that
moment, however many they are, and fewer when the next batch comes within it.
"""

import asyncio
import hashlib
import secrets
from collections import defaultdict
from collections.abc import Collection, Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from replicator.core.claims import CLAIM_BYTES
from replicator.core.model import SequenceNumber
from replicator.errors import ClaimsLost, Fenced, StoreUnavailable
from replicator.ports import ClaimScope, ClaimSession

FORMAT = "rr2"
META_KEPT_S = 7 * 24 * 3600
"""A scope nobody has touched for so long is forgotten; its next owner resolves by reading the sink back."""
CONNECTIONS_MAX = 32
OPERATIONS_MAX = 16
"""Of one script call: a server does nothing else meanwhile, and a full batch takes it about a millisecond."""

COMPANY_S = 0.05
"""How long a settlement waits for a claim to go with."""


class _Script:
    """One Lua file, called by its hash and loaded when the server does not know it."""

    def __init__(self, name: str) -> None:
        self.text = files("replicator.adapters").joinpath(f"{name}.lua").read_text(encoding="utf-8")
        self.sha = ""


class _Operation(Struct, eq=False):
    """One claim or settlement that waits for its call. ``args``: see redis_claims.lua."""

    scope: ClaimScope
    args: tuple[str | bytes | int, ...]
    answer: "asyncio.Future[list[bytes]]"


class RedisClaims:
    """Implements `ports.ClaimStore`; made by `connect`, closed by whoever made it."""

    def __init__(
        self, client: Any, where: str, window_s: float, *, is_cluster: bool = False, company_s: float = COMPANY_S
    ) -> None:
        self._client = client
        self._where = where
        self._is_cluster = is_cluster
        self._window_ms = int(window_s * 1000)
        self._kept_ms = max(META_KEPT_S * 1000, 4 * self._window_ms)
        self._attach = _Script("redis_attach")
        self._claims = _Script("redis_claims")
        self._company_s = company_s
        self._waiting: defaultdict[str, list[_Operation]] = defaultdict(list)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        """Of groups in which nothing but settlements waits."""
        self._due: set[str] = set()
        """Groups in which something waits that must go with the next call."""
        self._calling: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        for task in list(self._calling.values()):
            task.cancel()
        await asyncio.gather(*self._calling.values(), return_exceptions=True)
        for group in list(self._waiting):
            self._leave(group)
        await self._client.aclose()

    async def attach(self, scope: ClaimScope, epoch: int, attempt: int = 0) -> ClaimSession:
        args = (secrets.token_hex(8), epoch, self._kept_ms, self._window_ms, attempt)
        answer = _checked(scope, await self._called(self._attach, _keys(scope), args))
        _, store, batch, open_batches, watermark, is_new, remembers_ms, settled = [part.decode() for part in answer]
        return ClaimSession(
            scope,
            epoch,
            store,
            int(batch),
            int(open_batches),
            SequenceNumber(int(watermark)),
            is_new == "1",
            int(remembers_ms),
            int(settled),
            attempt,
        )

    async def claim(self, session: ClaimSession, batch: int, claims: bytes) -> bytes:
        assert len(claims) % CLAIM_BYTES == 0
        verdicts: bytes = (await self._operate("claim", session, batch, claims, ("", 0, 0)))[1]
        return verdicts

    async def settle(
        self,
        session: ClaimSession,
        batch: int,
        undone: Collection[int],
        watermark: SequenceNumber,
        *,
        number: int = 0,
        after: int = 0,
        may_wait: bool = False,
    ) -> None:
        places = "".join(f"{index}," for index in undone)
        mark = (str(watermark), number, after)
        await self._operate("settle", session, batch, places, mark, may_wait=may_wait)

    async def _operate(
        self,
        kind: str,
        session: ClaimSession,
        batch: int,
        payload: str | bytes,
        mark: tuple[str, int, int],
        *,
        may_wait: bool = False,
    ) -> list[bytes]:
        scope = session.scope
        place = (session.store, session.epoch, session.attempt, batch)
        args = (kind, *place, payload, _name(scope, "w:"), *mark)
        loop = asyncio.get_running_loop()
        operation = _Operation(scope, args, loop.create_future())
        group = _tag(scope) if self._is_cluster else ""
        waiting = self._waiting[group]
        waiting.append(operation)
        if not may_wait or len(waiting) >= OPERATIONS_MAX:
            self._call_soon(group)
        elif group not in self._due and group not in self._timers:
            self._timers[group] = loop.call_later(self._company_s, self._call_soon, group)
        return _checked(scope, await operation.answer)

    def _call_soon(self, group: str) -> None:
        """All that waits, now or when the call under way has ended."""
        self._due.add(group)
        self._stop_timer(group)
        if group not in self._calling:
            self._calling[group] = asyncio.create_task(self._call_all(group))

    async def _call_all(self, group: str) -> None:
        """Until nothing is due any more. Who waits gets its answer, or the error of the call."""
        try:
            while group in self._due:
                waiting = self._waiting.pop(group)
                if len(waiting) > OPERATIONS_MAX:
                    self._waiting[group] = waiting[OPERATIONS_MAX:]
                else:
                    self._due.discard(group)
                await self._call_some(waiting[:OPERATIONS_MAX])
        except BaseException:
            self._leave(group)
            raise
        finally:
            del self._calling[group]

    def _stop_timer(self, group: str) -> None:
        timer = self._timers.pop(group, None)
        if timer is not None:
            timer.cancel()

    def _leave(self, group: str) -> None:
        """Nothing of the group is called any more."""
        self._stop_timer(group)
        self._due.discard(group)
        for operation in self._waiting.pop(group, ()):
            operation.answer.cancel()

    async def _call_some(self, operations: Sequence[_Operation]) -> None:
        keys = [key for operation in operations for key in _keys(operation.scope)]
        args = [arg for operation in operations for arg in operation.args]
        try:
            answers = await self._called(self._claims, keys, (self._window_ms, self._kept_ms, *args))
        except asyncio.CancelledError:
            for operation in operations:
                operation.answer.cancel()
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is the answer to those who wait
            for operation in operations:
                if not operation.answer.done():
                    operation.answer.set_exception(exc)
            return
        for operation, answer in zip(operations, answers, strict=True):
            if not operation.answer.done():
                operation.answer.set_result(answer)

    async def forget(self, session: ClaimSession) -> None:
        """Buckets go by themselves when the window has passed."""
        try:
            await self._client.execute_command("DEL", _name(session.scope, "m"), _name(session.scope, "o"))
        except (RedisError, OSError, TimeoutError) as exc:
            raise StoreUnavailable(f"forgetting claims of {_text(session.scope)}: {exc}") from exc

    async def _called(self, script: _Script, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """What the script answers. Raises StoreUnavailable."""
        try:
            return await self._evaluate(script, keys, args)
        except (RedisError, OSError, TimeoutError) as exc:
            raise StoreUnavailable(f"Redis at {self._where}: {type(exc).__name__} {exc}") from exc

    async def _evaluate(self, script: _Script, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        if script.sha:
            try:
                return await self._client.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
            except NoScriptError:
                script.sha = ""
        # EVAL loads the script as well; its hash is what SHA-1 of the text gives.
        answer = await self._client.execute_command("EVAL", script.text, len(keys), *keys, *args)
        script.sha = _sha1(script.text)
        return answer


def _checked(scope: ClaimScope, answer: list[bytes]) -> list[bytes]:
    match answer[0]:
        case b"ok":
            return answer
        case b"fenced":
            raise Fenced(f"claims of {_text(scope)} are held under epoch {int(answer[1])}")
        case b"lost":
            raise ClaimsLost(f"claims of {_text(scope)} are lost: {answer[1].decode()}; attach anew")
    raise StoreUnavailable(f"claims of {_text(scope)}: {answer[1].decode(errors='replace')}")


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _tag(scope: ClaimScope) -> str:
    """The same for all links of a source's shard."""
    return f"{scope.link.partition(':')[0]}|{scope.shard}|{scope.incarnation}"


def _name(scope: ClaimScope, rest: str) -> str:
    return f"{FORMAT}:{{{_tag(scope)}}}:{scope.link}:{rest}"


def _keys(scope: ClaimScope) -> tuple[str, str]:
    return _name(scope, "m"), _name(scope, "o")


def _text(scope: ClaimScope) -> str:
    return f"{scope.link} on {scope.shard}"


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] or parts.path


def connect(
    url: str,
    *,
    password: str | None = None,
    is_cluster: bool = False,
    tls_ca_file: str | None = None,
    timeout_s: float = 1.0,
    window_s: float = 3600.0,
    company_s: float = COMPANY_S,
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
    return RedisClaims(client, _without_secrets(url), window_s, is_cluster=is_cluster, company_s=company_s)
