"""One JSON API of AWS over HTTP: sign, send, and say truly what became of the request.

What matters to delivery is decided here, where the bytes leave: a connection that could not be made had no effect; an
answer of the service says what happened; anything else after the request may have left is in doubt for a write.
"""

import asyncio
import time
from email.utils import parsedate_to_datetime
from io import BytesIO
from urllib.parse import urlsplit

import aiohttp
import msgspec
from msgspec import Struct

from replicator.aws.session import AwsSession
from replicator.aws.signer import Signer, body_hash
from replicator.errors import InDoubt, Misconfigured, Refused, TransientError

CONTENT_TYPE = "application/x-amz-json-1.1"
CONNECT_S = 3.0
LARGE_BODY_BYTES = 1024 * 1024
"""From here on aiohttp wants a file to send in pieces, so that one write does not hold the event loop."""
KEEPALIVE_S = 15.0
"""Idle connections are closed after this, before most load balancers close them under a request."""

THROTTLED = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "ThrottlingException",
        "Throttling",
        "RequestLimitExceeded",
        "KMSThrottlingException",
        "SlowDown",
    }
)
INVALID = frozenset({"ValidationException", "InvalidArgumentException", "SerializationException"})
EXPIRED = frozenset({"ExpiredTokenException", "ExpiredToken"})
ADVICE = {
    "AccessDeniedException": "allow the task role this action on this resource",
    "ResourceNotFoundException": "create it, or correct its name and region in the configuration",
    "UnrecognizedClientException": "check the credentials and the region they are valid for",
    "InvalidSignatureException": "check this machine's clock and its credentials",
    "MissingAuthenticationTokenException": "check the credentials",
}


class Reply(Struct, frozen=True):
    """``date_ms``: the service's clock from its Date header (resolution one second), None without one."""

    body: bytes
    date_ms: int | None
    round_trip_ms: int


class ServiceError(Refused):
    """A 4xx answer whose meaning is the caller's business; ``code`` is the vendor's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class _ErrorBody(Struct):
    type: str = msgspec.field(name="__type", default="")
    message: str = ""
    Message: str = ""


def http_session(connections_max: int) -> aiohttp.ClientSession:
    """The connection pool that all APIs of a process share; the caller closes it."""
    connector = aiohttp.TCPConnector(limit=connections_max, keepalive_timeout=KEEPALIVE_S)
    return aiohttp.ClientSession(connector=connector, auto_decompress=False)


class JsonApi:
    """Calls of one service in one region."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        session: AwsSession,
        *,
        service: str,
        region: str,
        url: str,
        prefix: str,
    ) -> None:
        self._http = http
        self._session = session
        self._url = url.rstrip("/") + "/"
        self._prefix = prefix
        self._where = f"{service} in {region}"
        self._signer = Signer(urlsplit(url).netloc, region, service, CONTENT_TYPE)

    async def call(
        self, operation: str, body: bytes, *, is_write: bool, timeout_s: float, sha256: str | None = None
    ) -> Reply:
        """One request, one attempt (two when the credentials had expired).

        Raises TransientError (no effect), InDoubt (writes only), Misconfigured, or ServiceError for other 4xx.
        """
        sha256 = sha256 or body_hash(body)
        try:
            return await self._attempt(operation, body, sha256, is_write, timeout_s, is_stale=False)
        except Misconfigured as exc:
            if exc.code not in EXPIRED:
                raise
        return await self._attempt(operation, body, sha256, is_write, timeout_s, is_stale=True)

    async def _attempt(
        self, operation: str, body: bytes, sha256: str, is_write: bool, timeout_s: float, *, is_stale: bool
    ) -> Reply:
        credentials = await self._session.credentials(is_stale=is_stale)
        sent_s = time.time()
        headers = self._signer.headers(f"{self._prefix}.{operation}", sha256, sent_s, credentials)
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_S)
        try:
            data = body if len(body) < LARGE_BODY_BYTES else BytesIO(body)
            async with self._http.post(self._url, data=data, headers=headers, timeout=timeout) as response:
                content = await response.read()
                status, date = response.status, response.headers.get("Date")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
            raise TransientError(
                f"{operation}: can't connect to {self._where}: {exc}", code="connect"
            ) from exc
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as exc:
            raise self._unknown(operation, is_write, sent_s, f"{type(exc).__name__} {exc}") from exc
        if status == 200:
            return Reply(content, _date_ms(date), int((time.time() - sent_s) * 1000))
        raise self._failure(operation, status, content, is_write, sent_s)

    def _unknown(self, operation: str, is_write: bool, sent_s: float, what: str) -> Exception:
        text = f"{operation} to {self._where}: no answer ({what})"
        return (
            InDoubt(text, sent_ms=int(sent_s * 1000)) if is_write else TransientError(text, code="no_answer")
        )

    def _failure(
        self, operation: str, status: int, content: bytes, is_write: bool, sent_s: float
    ) -> Exception:
        code, message = _error(content)
        text = f"{operation} to {self._where}: {status} {code} {message}".rstrip()
        if code in THROTTLED:
            return TransientError(text, code="throttled")
        if status >= 500 or not code:
            # The service does not promise that a failed write stored nothing.
            return self._unknown(operation, is_write, sent_s, f"{status} {code} {message}".rstrip())
        if code in INVALID or code == "ExpiredIteratorException":
            return ServiceError(code, text)
        advice = ADVICE.get(code, "see the vendor's message")
        return Misconfigured(f"{text}; {advice}", code=code)


def _error(content: bytes) -> tuple[str, str]:
    try:
        body = msgspec.json.decode(content, type=_ErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "", content[:200].decode("utf-8", "replace")
    return body.type.rpartition("#")[2], body.message or body.Message


def _date_ms(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(parsedate_to_datetime(text).timestamp() * 1000)
    except ValueError:
        return None
