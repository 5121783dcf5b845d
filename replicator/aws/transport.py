"""One JSON API of AWS over HTTP: sign, send, and say truly what became of the request.

What matters to delivery is decided here, where the bytes leave: while nothing of the body was written there is
no effect; what an answer means stands in `failures`; without one a write is in doubt.
"""

import time
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from msgspec import Struct

from replicator.aws.failures import EXPIRED, Answer, Asked, ServiceError, failure, unknown_effect
from replicator.aws.session import AwsSession
from replicator.aws.signer import Credentials, Signer, body_hash
from replicator.errors import Misconfigured, TransientError

__all__ = ["JSON_1_0", "JSON_1_1", "JsonApi", "Reply", "ServiceError", "decoded", "http_session"]

JSON_1_1 = "application/x-amz-json-1.1"
JSON_1_0 = "application/x-amz-json-1.0"
"""Of DynamoDB and its streams; a service takes its own."""
T = TypeVar("T")

CONNECT_S = 3.0
KEEPALIVE_S = 15.0
"""Idle connections are closed after this, before most load balancers close them under a request."""


class Reply(Struct, frozen=True):
    """``date_ms``: the service's clock from its Date header (resolution one second), None without one.

    It was made between ``sent_s`` and ``received_s`` of `time.monotonic`.
    """

    body: bytes
    date_ms: int | None
    sent_s: float
    received_s: float


class _Call(Struct, frozen=True):
    operation: str
    body: bytes
    sha256: str
    is_write: bool
    timeout_s: float
    signed_s: float | None


class _Body(aiohttp.BytesPayload):
    """Bytes, and whether any of them may have left. Reused connections can fail before that."""

    def __init__(self, value: bytes, content_type: str) -> None:
        # The parent's own __init__ warns above 1 MiB; PutRecords bodies are larger by design.
        Payload.__init__(self, value, content_type=content_type)
        self._size = len(value)
        self.has_left = False

    async def write(self, writer: AbstractStreamWriter) -> None:
        self.has_left = True
        await super().write(writer)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self.has_left = True
        await super().write_with_length(writer, content_length)


def http_session(connections_max: int) -> aiohttp.ClientSession:
    """The connection pool that all APIs of a process share; the caller closes it."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections_max, keepalive_timeout=KEEPALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        # Nothing is decompressed, so nothing compressed may be offered.
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
    )


class JsonApi:
    """Calls of one service in one region. ``url`` has no path: requests are signed for "/"."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        session: AwsSession,
        *,
        service: str,
        region: str,
        url: str,
        prefix: str,
        content_type: str = JSON_1_1,
    ) -> None:
        self._http = http
        self._session = session
        self._url = url.rstrip("/") + "/"
        self._prefix = prefix
        self._where = f"{service} in {region}"
        self._content_type = content_type
        self._signer = Signer(host_of(self._url), region, service, content_type)

    async def call(
        self,
        operation: str,
        body: bytes,
        *,
        is_write: bool,
        timeout_s: float,
        sha256: str | None = None,
        signed_s: float | None = None,
    ) -> Reply:
        """One request, one attempt (two when the credentials had expired and no date was given).

        ``signed_s`` dates the signature (now by default), ``sha256`` is the hash of the body where the caller has it.
        Raises TransientError (no effect), InDoubt (writes only), Misconfigured, or ServiceError for a refusal of the
        request itself. A call of a given date is never repeated here: the date goes with a right that the caller had
        when it was taken, and new credentials may have taken long to get. The caller dates anew.
        """
        call = _Call(operation, body, sha256 or body_hash(body), is_write, timeout_s, signed_s)
        credentials = await self._session.credentials()
        try:
            return await self._attempt(call, credentials)
        except Misconfigured as exc:
            if exc.code not in EXPIRED:
                raise
            renewed = await self._session.credentials(refused=credentials)
            if signed_s is not None:
                if renewed == credentials:
                    raise
                raise TransientError(f"{exc}; they were renewed", code="credentials_renewed") from exc
        return await self._attempt(call, renewed)

    async def _attempt(self, call: _Call, credentials: Credentials) -> Reply:
        sent_s, now_s = time.monotonic(), time.time()
        signed_s = now_s if call.signed_s is None else call.signed_s
        target = f"{self._prefix}.{call.operation}"
        headers = self._signer.headers(target, call.sha256, signed_s, credentials)
        asked = Asked(call.operation, self._where, call.is_write, int(now_s * 1000), call.signed_s is not None)
        answer = await self._send(asked, _Body(call.body, self._content_type), headers, call.timeout_s)
        if answer.status != 200:
            raise failure(asked, answer)
        return Reply(answer.body, answer.date_ms, sent_s, time.monotonic())

    async def _send(self, asked: Asked, body: _Body, headers: dict[str, str], timeout_s: float) -> Answer:
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_S)
        try:
            async with self._http.post(
                self._url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, OSError) as exc:  # a TimeoutError is an OSError
            what = f"{type(exc).__name__} {exc}".rstrip()
            if body.has_left:
                raise unknown_effect(asked, what) from exc
            text = f"{asked.operation}: can't connect to {self._where}: {what}"
            raise TransientError(text, code="connect") from exc
        error_type = response.headers.get("x-amzn-errortype", "")
        return Answer(response.status, content, error_type, _date_ms(response.headers.get("Date")))


def decoded(decoder: msgspec.json.Decoder[T], reply: Reply, service: str) -> T:
    """What the answer says. Raises TransientError when it can't be read."""
    try:
        return decoder.decode(reply.body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise TransientError(f"an answer of {service} can't be read: {exc}", code="bad_reply") from exc


def host_of(url: str) -> str:
    """The Host header as botocore signs it: lower case, and a port only where it isn't the default."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return host if parts.port in (None, default) else f"{host}:{parts.port}"


def _date_ms(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(parsedate_to_datetime(text).timestamp() * 1000)
    except ValueError:
        return None
