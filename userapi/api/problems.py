"""Errors as `application/problem+json` (RFC 9457): the only place where a category has a status."""

import http
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import orjson
import structlog
from flask import Flask, Response, current_app, request
from flask_jwt_extended.exceptions import JWTExtendedException
from psycopg2 import errors as pg_errors
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import (
    HTTPException,
    MethodNotAllowed,
)
from werkzeug.exceptions import NotFound as NothingHere
from werkzeug.routing import MapAdapter

from userapi.actor import Concealed
from userapi.audit.actions import AuditAction, Outcome
from userapi.authentication.refusals import AuthenticationRequired, TokenRefused
from userapi.errors import (
    Conflict,
    FieldError,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    ServiceError,
    Stale,
    TooMany,
    Unauthenticated,
    Unavailable,
    faults_of,
)

from .context import current_actor, request_state, services

log = structlog.get_logger(__name__)

CONTENT_TYPE = "application/problem+json"
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
    """The body is of a type that this endpoint does not take."""

    code = 415
    description = "This endpoint accepts application/json."


class SlashTooMany(NothingHere):
    """There is nothing here, but there is without the slash at the end."""

    description = "The path does not exist. The same path without the trailing slash exists."


class UnsupportedCoding(UnsupportedMediaType):
    """The body is compressed, which no endpoint takes."""

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
    response = Response(orjson.dumps(body), status, content_type=CONTENT_TYPE)
    response.headers["Cache-Control"] = "no-store"
    for name, value in (headers or {}).items():
        response.headers[name] = value
    return response


def handle_service_error(error: ServiceError) -> Response:
    """Answer what the domain refused."""
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
            _record_denial(error)
        except (DBAPIError, PoolTimeout) as exc:
            # A refusal that leaves no trace is none that can be given: it is refused later.
            return handle_database_error(exc)
    if isinstance(error, Unavailable):
        log.warning("request.unavailable", code=error.code)
    return problem_response(
        status, error.code, error.title, detail=error.detail, extra=extra, headers=headers
    )


def challenge(error: Unauthenticated) -> str:
    """Return the challenge of a 401; an error only where a token was sent (RFC 6750 §3)."""
    sent = isinstance(error, TokenRefused) or "Authorization" in request.headers
    if isinstance(error, AuthenticationRequired) or not sent:
        return "Bearer"
    return f'Bearer error="invalid_token", error_description="{error.title}"'


def handle_http_exception(error: HTTPException) -> Response:
    """Answer what Flask and Werkzeug refused."""
    if error is request.routing_exception and isinstance(error, NothingHere):
        error = _better_than_not_found(error)
    status = error.code or 500
    phrase = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else "Error"
    headers: dict[str, str] = {}
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        headers["Allow"] = ", ".join(sorted(error.valid_methods))
    if isinstance(error, UnsupportedCoding):
        headers["Accept-Encoding"] = "identity"  # RFC 9110 §15.5.16
    if status >= 500:
        log.error("request.failed", status=status, exc_info=error.__cause__ or error)
    return problem_response(
        status,
        _HTTP_CODES.get(status, "error"),
        phrase,
        detail=error.description if status < 500 and type(error) is not NothingHere else None,
        headers=headers,
    )


def methods_with_slash() -> Collection[str]:
    """Return what can be done to the path of the request with a slash behind it.

    Werkzeug answers such a path for the methods that it has, and knows nothing of it for others.
    """
    if request.path.endswith("/"):
        return ()
    return list(_adapter().allowed_methods(f"{request.path}/"))


def _better_than_not_found(error: NothingHere) -> HTTPException:
    """Return what is wrong with a path that is nearly right."""
    methods = methods_with_slash()
    if methods:
        return MethodNotAllowed(valid_methods=methods)
    shorter = request.path.rstrip("/")
    if shorter != request.path and shorter and _adapter().allowed_methods(shorter):
        return SlashTooMany()
    return error


def _adapter() -> MapAdapter:
    adapter: MapAdapter = current_app.create_url_adapter(request)  # type: ignore[assignment]
    return adapter


def handle_database_error(error: DBAPIError | PoolTimeout) -> Response:
    """Answer a database that is away, slow, full or of another release with 503, else with 500."""
    if is_outage(error):
        log.warning("database.unavailable", error=type(error).__name__)
        return handle_service_error(Unavailable())
    if isinstance(
        getattr(error, "orig", None), pg_errors.UndefinedTable | pg_errors.UndefinedColumn
    ):
        # As readiness says, too. On SQLite this is an OperationalError, and so an outage.
        log.error("database.not_migrated", exc_info=error)
        return handle_service_error(Unavailable())
    return handle_unexpected(error)


def is_outage(error: BaseException) -> bool:
    """Return whether a database error means that it may well work again in a moment."""
    if isinstance(error, PoolTimeout | OperationalError | InterfaceError):
        return True
    return isinstance(error, DBAPIError) and (
        error.connection_invalidated
        or isinstance(error.orig, pg_errors.ReadOnlySqlTransaction | pg_errors.QueryCanceled)
    )


def handle_unexpected(error: Exception) -> Response:
    """Answer a fault of ours with 500 and no word about it; the log has the rest.

    Raises it again where the debugger of `flask run --debug` shows it.
    """
    if DEBUGGER in request.environ:
        raise error
    log.error("request.crashed", exc_info=error)
    return problem_response(
        500, "internal_error", "Internal Server Error", detail="An internal error occurred."
    )


def _record_denial(error: Forbidden | Concealed) -> None:
    """Leave a row for what somebody tried who may not: it is what auditors look for.

    In a transaction of its own: that of the refused change was rolled back. The rate limit comes
    before the guard and so bounds how many rows one user can make.
    """
    actor = current_actor()
    if actor.id is None:
        return
    members = {"permission": error.permission} if isinstance(error, Concealed) else error.extra
    services().audit.record_alone(
        AuditAction.AUTH_PERMISSION_DENIED,
        actor=actor,
        target=_refused_target(),
        outcome=Outcome.DENIED,
        details={
            "code": error.code,
            "method": request.method,
            "endpoint": request.endpoint,
            **{k: v for k, v in members.items() if isinstance(v, str | list)},
        },
    )


def _refused_target() -> tuple[str, object] | None:
    """Return what the refused request was about, as its path says."""
    values = request.view_args or {}
    if "user_id" in values:
        return "user", values["user_id"]
    if "name" in values and "/roles/<name>" in str(request.url_rule):
        return "role", str(values["name"])[:64]
    return None


def invalid_from_messages(messages: Any) -> Invalid:
    """Return marshmallow's nested messages as a flat list of field errors."""
    return Invalid(list(_flatten(messages, "")))


@runtime_checkable
class JudgesFurther(Protocol):
    """A schema that knows rules beyond the form of its fields."""

    def require_valid(self, given: Mapping[str, Any]) -> None:
        """Raise Invalid for fields that have the right form and break another rule."""
        ...


def every_fault(schema: Any, messages: Any, valid: Any) -> Invalid:
    """Return all that is wrong with a request: its form, as marshmallow's `messages` say, and what
    the schema says besides of the fields whose form is right.
    """
    errors = invalid_from_messages(messages).errors
    faulty = {error.field.split(".")[0] for error in errors}
    if isinstance(schema, JudgesFurther) and isinstance(valid, dict):
        right = {name: value for name, value in valid.items() if name not in faulty}
        errors += tuple(faults_of(lambda: schema.require_valid(right)))
    return Invalid(errors)


_CODES_BY_MESSAGE = {
    "Missing data for required field.": "required",
    "Unknown field.": "unknown_field",
    "Field may not be null.": "null_not_allowed",
    "Invalid input type.": "wrong_type",
}


class Coded(str):
    """A message of a validator that brings its code along."""

    code: str

    def __new__(cls, message: str, code: str) -> "Coded":
        """Return the message as text with a code."""
        made = super().__new__(cls, message)
        made.code = code
        return made


def _flatten(messages: Any, path: str) -> Iterator[FieldError]:
    if isinstance(messages, dict):
        for key, value in messages.items():
            part = "" if key == "_schema" else str(key)
            yield from _flatten(value, ".".join(filter(None, (path, part))))
    elif isinstance(messages, list):
        for message in messages:
            yield from _flatten(message, path)
    else:
        code = getattr(messages, "code", None) or _CODES_BY_MESSAGE.get(str(messages), "invalid")
        yield FieldError(path or "body", str(messages), code)


def init_app(app: Flask) -> None:
    """Answer every error of the application with a problem document."""
    app.register_error_handler(ServiceError, handle_service_error)
    app.register_error_handler(DBAPIError, handle_database_error)
    app.register_error_handler(PoolTimeout, handle_database_error)
    app.register_error_handler(JWTExtendedException, handle_unexpected)
    app.register_error_handler(HTTPException, handle_http_exception)
    app.register_error_handler(Exception, handle_unexpected)
