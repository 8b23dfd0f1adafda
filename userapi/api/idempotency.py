"""`Idempotency-Key`: a create that is sent twice has one effect, and both get the same response."""

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from typing import Any, Protocol
from uuid import UUID

from flask import Response, request
from psycopg2 import errors as pg_errors
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError, OperationalError

from userapi.errors import Conflict, Invalid, Malformed
from userapi.infrastructure.database import (
    reading,
    require_transaction,
    statement_timeout,
    table_of,
)
from userapi.infrastructure.idempotency_keys import IdempotencyKey, IdempotencyStore

from .bodies import read_body
from .callers import client_network
from .context import current_actor, services

RETENTION = timedelta(hours=24)
MAX_WAIT_SECONDS = 5
KEY = re.compile(r"[\x21-\x7e]{1,128}")
STORED_HEADERS = ("Content-Type", "ETag", "Location")

_table = table_of(IdempotencyKey)


class InvalidIdempotencyKey(Malformed):
    """The key is not 1 to 128 visible ASCII characters."""

    code = "invalid_idempotency_key"
    title = "Idempotency-Key must have 1 to 128 visible ASCII characters."


class IdempotencyKeyReused(Invalid):
    """An earlier request with other content had the same key."""

    code = "idempotency_key_reused"
    title = "This Idempotency-Key was used for another request."


class RequestInProgress(Conflict):
    """The first request with this key is still in progress."""

    code = "request_in_progress"
    title = "The first request with this Idempotency-Key is still in progress. Retry later."
    retry_after = 1


IDEMPOTENCY_ERRORS = (InvalidIdempotencyKey, IdempotencyKeyReused, RequestInProgress)

Render = Callable[[Any], Response]


class _AlreadyCommitted(Exception):
    """Another request with the key has committed since this one read the table."""


class _Store(IdempotencyStore, Protocol):
    """A store that also holds the response of this request."""

    response: Response | None


@dataclass(frozen=True, slots=True)
class _Request:
    """A request with a key: what the key is unique within, and the content of the request.

    `purpose` derives the key that encrypts the stored body; None if it is stored as it is.
    """

    scope: str
    fingerprint: str
    purpose: str | None


class _DatabaseStore:
    """Stores the response of this request under its key."""

    def __init__(self, keyed: _Request, render: Render) -> None:
        self._keyed = keyed
        self._render = render
        self.response: Response | None = None

    def claim(self) -> None:
        """Claim the key. Waits for another request that holds it. Raises RequestInProgress."""
        session = require_transaction()
        now = services().clock.now()
        try:
            with statement_timeout(session, MAX_WAIT_SECONDS):
                session.execute(
                    delete(_table).where(
                        _table.c.scope_hash == self._keyed.scope, _table.c.expires_at <= now
                    )
                )
                session.execute(
                    insert(_table).values(
                        scope_hash=self._keyed.scope,
                        request_hash=self._keyed.fingerprint,
                        status=0,
                        headers={},
                        body=b"",
                        created_at=now,
                        expires_at=now + RETENTION,
                    )
                )
        except IntegrityError as exc:
            raise _AlreadyCommitted() from exc
        except OperationalError as exc:
            if isinstance(exc.orig, pg_errors.LockNotAvailable | pg_errors.QueryCanceled):
                raise RequestInProgress() from exc
            raise

    def store(self, result: Any, *, user_id: UUID | None = None) -> None:
        """Store the response in the transaction of its effect."""
        self.response = response = self._render(result)
        require_transaction().execute(
            update(_table)
            .where(_table.c.scope_hash == self._keyed.scope)
            .values(
                status=response.status_code,
                headers={n: response.headers[n] for n in STORED_HEADERS if n in response.headers},
                body=_sealed(response.get_data(), self._keyed),
                user_id=user_id,
            )
        )


class _NullStore:
    """Renders the response and stores nothing: the request has no key."""

    def __init__(self, render: Render) -> None:
        self._render = render
        self.response: Response | None = None

    def claim(self) -> None:
        """Claim nothing."""

    def store(self, result: Any, *, user_id: UUID | None = None) -> None:
        """Render the response."""
        self.response = self._render(result)


def idempotent(
    render: Render, *, secret: bool = False
) -> Callable[[Callable[..., None]], Callable[..., Response]]:
    """Call the view with `idempotency=`, which it passes to the use case.

    `render` makes the response from the result of the use case. A response that contains a secret
    is stored encrypted; the client's key, which is not stored, is part of the encryption key.
    Raises InvalidIdempotencyKey, IdempotencyKeyReused, RequestInProgress.
    """

    def decorate(view: Callable[..., None]) -> Callable[..., Response]:
        @wraps(view)
        def wrapped(*args: Any, **kwargs: Any) -> Response:
            key = request.headers.get("Idempotency-Key")
            if key is None:
                return _run(view, _NullStore(render), args, kwargs)
            if not KEY.fullmatch(key):
                raise InvalidIdempotencyKey()
            purpose = f"idempotency:{key}" if secret else None
            keyed = _Request(_scope(key), _fingerprint(), purpose)
            stored = _stored_response(keyed)
            if stored is not None:
                return stored
            try:
                return _run(view, _DatabaseStore(keyed, render), args, kwargs)
            except _AlreadyCommitted:
                stored = _stored_response(keyed)
                if stored is None:
                    raise RequestInProgress() from None
                return stored

        return wrapped

    return decorate


def _run(view: Callable[..., None], idempotency: _Store, args: Any, kwargs: Any) -> Response:
    view(*args, idempotency=idempotency, **kwargs)
    if idempotency.response is None:
        raise RuntimeError("the use case did not store its response")
    return idempotency.response


def _stored_response(keyed: _Request) -> Response | None:
    query = select(_table).where(
        _table.c.scope_hash == keyed.scope, _table.c.expires_at > services().clock.now()
    )
    with reading() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if not hmac.compare_digest(row.request_hash, keyed.fingerprint):
        raise IdempotencyKeyReused()
    response = Response(_opened(row.body, keyed), row.status)
    for name, value in row.headers.items():
        response.headers[name] = value
    response.headers["Idempotent-Replay"] = "true"
    return response


def _sealed(body: bytes, keyed: _Request) -> bytes:
    """Return a body as it is stored."""
    if keyed.purpose is None:
        return body
    return services().encryption.seal(body, keyed.purpose, keyed.scope.encode())


def _opened(stored: bytes, keyed: _Request) -> bytes:
    """Return a stored body. Raises SealedValueUnreadable."""
    if keyed.purpose is None:
        return stored
    return services().encryption.open_sealed(stored, keyed.purpose, keyed.scope.encode())


def _scope(key: str) -> str:
    """Return the hash of what a key is unique within: the caller, the method and the path.

    Callers without a token are separated by network, so that none receives the response of another.
    """
    actor = current_actor()
    caller = f"network:{client_network()}" if actor.id is None else f"{actor.type}:{actor.id}"
    parts = "\0".join((caller, request.method, request.path.rstrip("/"), key))
    return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()


def _fingerprint() -> str:
    # Keyed, because the body can contain a password that a plain digest would expose to search.
    secret = services().settings.secret_key.encode()
    return hmac.new(secret, b"idempotency\0" + read_body(), hashlib.sha256).hexdigest()
