"""The responses of a protected service to rejected callers, as problem documents."""

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from userapi_client.errors import (
    TITLES,
    FreshAuthenticationRequired,
    PermissionDenied,
    TokenRefused,
    Unavailable,
    UserApiError,
)

CONTENT_TYPE = "application/problem+json"
CORRELATION_ID = "X-Correlation-ID"
REALM = "Bearer"
RETRY_AFTER_SECONDS = 2
# The errors about a caller. Those of a `Client` that the view uses are not for the caller.
ANSWERED = (TokenRefused, PermissionDenied, Unavailable)
_CORRELATION_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorResponse:
    """Status, headers and body of an error."""

    status: int
    headers: Mapping[str, str]
    document: Mapping[str, Any]

    @property
    def body(self) -> bytes:
        """The document as JSON."""
        return json.dumps(self.document).encode()


def bearer_token(authorization: str | None) -> str:
    """Return the token of an `Authorization` header. Raises TokenRefused.

    The scheme is case-insensitive (RFC 9110 §11.1).
    """
    scheme, _, token = (authorization or "").strip().partition(" ")
    if scheme.lower() != "bearer":
        raise TokenRefused("authentication_required")
    token = token.strip()
    if not token or " " in token:
        raise TokenRefused("token_invalid")
    return token


def error_response(
    error: UserApiError, *, path: str, correlation_id: str | None = None
) -> ErrorResponse:
    """Return the response to an error of verification (RFC 9457, RFC 6750 §3)."""
    correlation_id = correlation_id or ""
    if not _CORRELATION_ID.fullmatch(correlation_id):
        correlation_id = uuid.uuid4().hex
    headers = {
        "Content-Type": CONTENT_TYPE,
        "Cache-Control": "no-store",
        CORRELATION_ID: correlation_id,
    }
    status, code, more = 401, "token_invalid", {}
    if isinstance(error, Unavailable):
        status, code = 503, "service_unavailable"
        headers["Retry-After"] = str(max(1, round(error.retry_after or RETRY_AFTER_SECONDS)))
    elif isinstance(error, PermissionDenied):
        status, code, more = 403, "permission_denied", {"permission": error.permission}
    elif isinstance(error, TokenRefused):
        status, code = error.status, error.code
        if isinstance(error, FreshAuthenticationRequired):
            more = _wanted(error)
        if status == 401:
            headers["WWW-Authenticate"] = challenge(error)
    title = TITLES.get(code, TITLES["token_invalid"])
    document = {
        "type": f"urn:aima:problem:{code}",
        "title": title,
        "status": status,
        "detail": f"{error.permission} is missing."
        if isinstance(error, PermissionDenied)
        else title,
        "instance": path,
        "code": code,
        "correlation_id": correlation_id,
        **more,
    }
    return ErrorResponse(status=status, headers=headers, document=document)


def challenge(error: TokenRefused) -> str:
    """Return the challenge of a 401: with an error only if a token was sent (RFC 6750 §3)."""
    if error.code == "authentication_required":
        return REALM
    if isinstance(error, FreshAuthenticationRequired):
        wanted = "".join(f', {name}="{value}"' for name, value in _wanted(error).items())
        return f'{REALM} error="{error.code}", error_description="{error.title}"{wanted}'
    return f'{REALM} error="invalid_token", error_description="{error.title}"'


def _wanted(error: FreshAuthenticationRequired) -> dict[str, Any]:
    """Return the requirements for the authentication (RFC 9470 §3)."""
    wanted: dict[str, Any] = {}
    if error.max_age is not None:
        wanted["max_age"] = error.max_age
    if error.acr is not None:
        wanted["acr_values"] = error.acr
    return wanted
