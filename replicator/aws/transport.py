"""One JSON API of AWS over HTTP: sign, send, and say truly what became of the request.

What matters to delivery is decided here, where the bytes leave: while nothing of the body was written there is
no effect; what an answer means stands in `failures`; without one a write is in doubt.
"""

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from replicator.aws.failures import EXPIRED, Answer, Asked, ServiceError, failure, unknown_effect
from replicator.aws.http import Address, HttpPool, NoAnswer
from replicator.aws.session import AwsSession
from replicator.aws.signer import Credentials, Signer, body_hash
from replicator.errors import Misconfigured, TransientError

__all__ = ["JSON_1_0", "JSON_1_1", "JsonApi", "Reply", "ServiceError", "decoded"]

JSON_1_1 = "application/x-amz-json-1.1"
JSON_1_0 = "application/x-amz-json-1.0"
"""Of DynamoDB and its streams; a service takes its own."""
T = TypeVar("T")
HEAD_END = "accept-encoding: identity\r\nuser-agent: replicator\r\n\r\n"
"""Nothing is decompressed, so nothing compressed may be offered."""


class Reply(Struct, frozen=True):
    """``date_ms``: the service's clock from its Date header (resolution one second), None without one.

    It was made between ``sent_s`` and ``received_s`` of `time.monotonic`.
    """

    body: bytes | bytearray
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


class JsonApi:
    """Calls of one service in one region. ``url`` has no path: requests are signed for "/"."""

    def __init__(
        self,
        http: HttpPool,
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
        self._address = Address.of(url)
        self._prefix = prefix
        self._where = f"{service} in {region}"
        self._content_type = content_type
        self._signer = Signer(host_of(url), region, service, content_type)

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
        answer = await self._send(asked, self._head(headers, len(call.body)), call.body, call.timeout_s)
        if answer.status != 200:
            raise failure(asked, answer)
        return Reply(answer.body, answer.date_ms, sent_s, time.monotonic())

    def _head(self, headers: Mapping[str, str], body_bytes: int) -> bytes:
        told = "".join(headers.values())
        if not (told.isascii() and told.isprintable()):
            text = f"{self._where}: the credentials have characters that no request may have, such as a line break"
            raise Misconfigured(text, code="bad_credentials")
        lines = [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join(("POST / HTTP/1.1", *lines, f"content-length: {body_bytes}", HEAD_END)).encode()

    async def _send(self, asked: Asked, head: bytes, body: bytes, timeout_s: float) -> Answer:
        try:
            answered = await self._http.post(self._address, head, body, timeout_s)
        except NoAnswer as exc:
            if exc.has_left:
                raise unknown_effect(asked, str(exc)) from exc
            text = f"{asked.operation}: can't connect to {self._where}: {exc}"
            raise TransientError(text, code="connect") from exc
        headers = answered.headers
        error_type = headers.get("x-amzn-errortype", "")
        return Answer(answered.status, answered.body, error_type, _date_ms(headers.get("date")))


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


@lru_cache(maxsize=8)
def _date_ms(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(parsedate_to_datetime(text).timestamp() * 1000)
    except ValueError:
        return None
