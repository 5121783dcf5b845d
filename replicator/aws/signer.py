"""AWS Signature Version 4 for JSON POST requests: pure, the time is an argument.

Source: AWS, "Create a signed AWS API request" (Signature Version 4). The body's hash comes from the caller: one
body sent to several peers is hashed once. The signing key is kept per day, region and secret.
"""

import hashlib
import hmac
from datetime import UTC, datetime

from msgspec import Struct

ALGORITHM = "AWS4-HMAC-SHA256"


class Credentials(Struct, frozen=True):
    access_key: str
    secret_key: str
    token: str | None = None

    def __repr__(self) -> str:
        """Without the secrets: what is printed or logged must not carry them."""
        return f"Credentials({self.access_key!r})"


def body_hash(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


class Signer:
    """Signs for one host, region and service; the path is "/" without a query, all that JSON APIs need."""

    def __init__(self, host: str, region: str, service: str, content_type: str) -> None:
        self._host = host
        self._region = region
        self._service = service
        self._content_type = content_type
        self._key_for: tuple[str, str] = ("", "")
        self._key = b""

    def headers(self, target: str, sha256: str, signed_s: float, credentials: Credentials) -> dict[str, str]:
        """All headers of the request, signed as of ``signed_s`` (seconds since the epoch)."""
        stamp = datetime.fromtimestamp(signed_s, UTC).strftime("%Y%m%dT%H%M%SZ")
        headers = {"content-type": self._content_type, "host": self._host, "x-amz-date": stamp}
        if credentials.token is not None:
            headers["x-amz-security-token"] = credentials.token
        headers["x-amz-target"] = target
        names = ";".join(headers)
        canonical = "\n".join(
            ("POST", "/", "", *[f"{name}:{value}" for name, value in headers.items()], "", names, sha256)
        )
        scope = f"{stamp[:8]}/{self._region}/{self._service}/aws4_request"
        text = f"{ALGORITHM}\n{stamp}\n{scope}\n{body_hash(canonical.encode())}"
        key = self._signing_key(stamp[:8], credentials.secret_key)
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        credential = f"{credentials.access_key}/{scope}"
        headers["authorization"] = f"{ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
        return headers

    def _signing_key(self, day: str, secret: str) -> bytes:
        if self._key_for != (day, secret):
            key = b"AWS4" + secret.encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.new(key, part.encode(), hashlib.sha256).digest()
            self._key_for, self._key = (day, secret), key
        return self._key
