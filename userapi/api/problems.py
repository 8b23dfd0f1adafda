"""Errors as `application/problem+json` (RFC 9457). Only this module maps errors to statuses."""

import http
from collections.abc import Mapping
from typing import Any

import orjson
import structlog
from flask import Flask, Response, request
from flask_jwt_extended.exceptions import JWTExtendedException
from psycopg2 import errors as pg_errors
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.exceptions import NotFound as PathNotFound

from userapi.actor import Concealed, InsufficientUserAuthentication
from userapi.authentication.password_check import InvalidCredentials
from userapi.authentication.refusals import AuthenticationRequired, TokenRefused
from userapi.errors import (
    Conflict,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    ServiceError,
    Stale,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from userapi.factors.errors import ProofRefused
from userapi.machines.errors import InvalidClient

from .context import request_state
from .denials import record_denial
from .slashes import explain_not_found

log = structlog.get_logger(__name__)

CONTENT_TYPE = "application/problem+json"
TOKEN_PATH = "/api/v1/auth/token"
# Set by Werkzeug's debugger, which only `flask run --debug` starts.
DEBUGGER = "werkzeug.debug.preserve_context"

STATUS: dict[type[ServiceError], int] = {
    Malformed: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Stale: 412,
    Invalid: 422,
    TooMany: 429,
    Unavailable: 503,
}

_HTTP_CODES = {
    400: "malformed_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    411: "length_required",
    413: "body_too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    431: "headers_too_large",
    500: "internal_error",
    501: "not_implemented",
}


class UnsupportedMediaType(HTTPException):
    """The endpoint does not accept the media type of the body."""

    code = 415
    description = "This endpoint accepts application/json."


class UnsupportedCoding(UnsupportedMediaType):
    """The body is compressed. No endpoint accepts that."""

    description = (
        "The body has a Content-Encoding, which this service does not decode."
        " Send it uncompressed, without that header."
    )


def status_of(error: type[ServiceError]) -> int:
    """Return the status of a domain error by its category."""
    for category in error.__mro__:
        if category in STATUS:
            return STATUS[category]
    return 500


def problem_response(
    status: int,
    code: str,
    title: str,
    *,
    detail: str | None = None,
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return one problem document."""
    state = request_state()
    body: dict[str, Any] = {
        "type": f"urn:aima:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail or title,
        "instance": request.path.encode("utf-8", "replace").decode(),
        "code": code,
        "correlation_id": state.correlation_id,
        **(extra or {}),
    }
    state.problem_code = code
    content_type = CONTENT_TYPE
    if _is_of_oauth():
        content_type = "application/json"
        body |= _oauth_members(status, code, detail or title)
    response = Response(orjson.dumps(body), status, content_type=content_type)
    response.headers["Cache-Control"] = "no-store"
    for name, value in (headers or {}).items():
        response.headers[name] = value
    return response


def _is_of_oauth() -> bool:
    """Return whether an OAuth client reads the error of this request."""
    return request.path.rstrip("/") == TOKEN_PATH


def _oauth_members(status: int, code: str, detail: str) -> dict[str, str]:
    """Return the members that OAuth clients require in every error (RFC 6749 §5.2).

    Their libraries interpret an error without these members as a token.
    """
    description = "".join(c if " " <= c <= "~" and c not in '"\\' else "'" for c in detail)
    return {
        "error": "temporarily_unavailable" if status == 503 else code,
        "error_description": description,
    }


def handle_service_error(error: ServiceError) -> Response:
    """Return the problem for an error of the domain."""
    status = status_of(type(error))
    extra: dict[str, Any] = dict(error.extra)
    headers: dict[str, str] = {}
    if isinstance(error, Invalid):
        extra["errors"] = [
            {"field": item.field, "message": item.message, "code": item.code}
            for item in error.errors
        ]
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = challenge(error)
    if isinstance(error, Forbidden | Concealed):
        try:
            record_denial(error)
        except (DBAPIError, PoolTimeout) as exc:
            # A denial must leave an audit row. Without one, the request fails as a whole.
            return handle_database_error(exc)
    if isinstance(error, Unavailable):
        log.warning("request.unavailable", code=error.code)
    return problem_response(
        status, error.code, error.title, detail=error.detail, extra=extra, headers=headers
    )


def challenge(error: Unauthenticated) -> str:
    """Return the challenge of a 401, with an error only if a token was sent (RFC 6750 §3)."""
    if isinstance(error, InsufficientUserAuthentication):
        return _step_up_challenge(error)
    if isinstance(error, InvalidClient):
        return InvalidClient.challenge
    sent = isinstance(error, TokenRefused) or "Authorization" in request.headers
    # The token is valid where a password, a code or a passkey in the body is not.
    refused_in_body = InvalidCredentials | ProofRefused
    if isinstance(error, AuthenticationRequired | refused_in_body) or not sent:
        return "Bearer"
    return f'Bearer error="invalid_token", error_description="{error.title}"'


def _step_up_challenge(error: InsufficientUserAuthentication) -> str:
    """Return the challenge that names the authentication that is needed (RFC 9470 §3)."""
    parameters = {
        "error": error.code,
        "error_description": error.title,
        "max_age": str(error.max_age),
    }
    if error.acr_values is not None:
        parameters["acr_values"] = error.acr_values
    return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in parameters.items())


def handle_http_exception(error: HTTPException) -> Response:
    """Return the problem for an error of Flask or Werkzeug."""
    if error is request.routing_exception and isinstance(error, PathNotFound):
        error = explain_not_found(error)
    status = error.code or 500
    phrase = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else "Error"
    headers: dict[str, str] = {}
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        headers["Allow"] = ", ".join(sorted(error.valid_methods))
    if isinstance(error, UnsupportedCoding):
        headers["Accept-Encoding"] = "identity"  # RFC 9110 §15.5.16
    if status >= 500:
        log.error("request.failed", status=status, exc_info=error.__cause__ or error)
    code = _HTTP_CODES.get(status, "error")
    if status == 400 and _is_of_oauth():
        code = "invalid_request"  # RFC 6749 §5.2
    return problem_response(
        status,
        code,
        phrase,
        detail=error.description if status < 500 and type(error) is not PathNotFound else None,
        headers=headers,
    )


def handle_database_error(error: DBAPIError | PoolTimeout) -> Response:
    """Return 503 if the database is unavailable or not migrated, otherwise 500."""
    if is_outage(error):
        log.warning("database.unavailable", error=type(error).__name__)
        return handle_service_error(Unavailable())
    if isinstance(
        getattr(error, "orig", None), pg_errors.UndefinedTable | pg_errors.UndefinedColumn
    ):
        # Readiness also reports it. SQLite raises OperationalError, which counts as an outage.
        log.error("database.not_migrated", exc_info=error)
        return handle_service_error(Unavailable())
    return handle_unexpected(error)


def is_outage(error: BaseException) -> bool:
    """Return whether a retry of the failed statement can succeed."""
    if isinstance(error, PoolTimeout | OperationalError | InterfaceError):
        return True
    return isinstance(error, DBAPIError) and (
        error.connection_invalidated
        or isinstance(error.orig, pg_errors.ReadOnlySqlTransaction | pg_errors.QueryCanceled)
    )


def handle_unexpected(error: Exception) -> Response:
    """Return 500 without details, and log the traceback.

    Raises the error again for the debugger of `flask run --debug`.
    """
    if DEBUGGER in request.environ:
        raise error
    log.error("request.crashed", exc_info=error)
    return problem_response(
        500, "internal_error", "Internal Server Error", detail="An internal error occurred."
    )


def init_app(app: Flask) -> None:
    """Return a problem document for every error of the application."""
    app.register_error_handler(ServiceError, handle_service_error)
    app.register_error_handler(DBAPIError, handle_database_error)
    app.register_error_handler(PoolTimeout, handle_database_error)
    app.register_error_handler(JWTExtendedException, handle_unexpected)
    app.register_error_handler(HTTPException, handle_http_exception)
    app.register_error_handler(Exception, handle_unexpected)
