"""Signature Version 4 as the receiver checks it: date within five minutes, then the signature itself.

Source: AWS General Reference, "Elements of an AWS API request signature". The five minutes bound how
late a request that was delayed on its way can still take effect.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote

from replicator.dev.kinesis_wire import KinesisError

SKEW_MAX_MS = 300_000
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key_id>[^/]+)/(?P<scope>[^,]+),\s*"
    r"SignedHeaders=(?P<headers>[^,]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class Signed:
    """The parts of a request that its signature covers. Header names are looked up without regard to case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Verifier:
    """Checks requests against one credential. With ``is_strict`` off only presence and date are checked."""

    region: str
    key_id: str
    secret: str
    is_strict: bool = True
    _keys: dict[str, bytes] = field(default_factory=dict)

    def check(self, request: Signed, now_ms: int) -> None:
        """Raise what AWS answers to a missing, expired, foreign or wrong signature."""
        parts = _AUTHORIZATION.fullmatch(request.headers.get("Authorization", ""))
        date = request.headers.get("X-Amz-Date", "")
        if parts is None or not date:
            raise KinesisError("MissingAuthenticationTokenException", "Missing Authentication Token")
        check_date(date, now_ms)
        if not self.is_strict:
            return
        if parts["key_id"] != self.key_id:
            raise KinesisError("UnrecognizedClientException", "The security token included in the request is invalid.")
        self._check_scope(parts["scope"], date)
        expected = self._signature(request, parts["headers"], parts["scope"], date)
        if not hmac.compare_digest(expected, parts["signature"]):
            raise invalid_signature(
                "The request signature we calculated does not match the signature you provided. "
                "Check your AWS Secret Access Key and signing method."
            )

    def _check_scope(self, scope: str, date: str) -> None:
        wanted = f"{date[:8]}/{self.region}/kinesis/aws4_request"
        if scope != wanted:
            raise invalid_signature(f"Credential should be scoped to {wanted}, not {scope}.")

    def _signature(self, request: Signed, signed_headers: str, scope: str, date: str) -> str:
        names = signed_headers.split(";")
        headers = "".join(f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in names)
        payload = sha256(request.body).hexdigest()
        path = quote(request.path, safe="/-_.~")
        canonical = f"{request.method}\n{path}\n{request.query}\n{headers}\n{signed_headers}\n{payload}"
        digest = sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{digest}"
        return hmac.new(self._key(scope), text.encode(), sha256).hexdigest()

    def _key(self, scope: str) -> bytes:
        """The signing key of a day, kept because it takes four hashes."""
        key = self._keys.get(scope)
        if key is None:
            key = f"AWS4{self.secret}".encode()
            for part in scope.split("/"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._keys = {scope: key}
        return key


def check_date(date: str, now_ms: int) -> None:
    """Raise InvalidSignatureException when ``date`` (``YYYYMMDDTHHMMSSZ``) is five minutes off or no date."""
    try:
        signed = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError as exc:
        raise KinesisError("IncompleteSignatureException", f"Date must be in ISO-8601 'basic format': {date}") from exc
    off_ms = signed.timestamp() * 1000 - now_ms
    if off_ms < -SKEW_MAX_MS:
        raise invalid_signature(f"Signature expired: {date} is now earlier than {_text(now_ms)} - 5 min.")
    if off_ms > SKEW_MAX_MS:
        raise invalid_signature(f"Signature not yet current: {date} is still later than {_text(now_ms)} + 5 min.")


def invalid_signature(message: str) -> KinesisError:
    return KinesisError("InvalidSignatureException", message)


def _text(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
