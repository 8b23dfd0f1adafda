"""`Idempotency-Key`: a create that is sent twice happens once, and is answered twice alike."""

import hashlib
import hmac
import re
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any
from uuid import UUID

from flask import Response, g, request
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
from .context import current_actor, services
from .limits import client_network

KEPT_FOR = timedelta(hours=24)
MAX_WAIT_SECONDS = 5
KEY = re.compile(r"[\x21-\x7e]{1,128}")
KEPT_HEADERS = ("Content-Type", "ETag", "Location")

_table = table_of(IdempotencyKey)


class InvalidIdempotencyKey(Malformed):
    """The key is not 1 to 128 visible ASCII characters."""

    code = "invalid_idempotency_key"
    title = "Idempotency-Key must have 1 to 128 visible ASCII characters."


class IdempotencyKeyReused(Invalid):
    """The key came with another request before."""

    code = "idempotency_key_reused"
    title = "This Idempotency-Key was used for another request."


class RequestInProgress(Conflict):
    """The first request with this key is still under way."""

    code = "request_in_progress"
    title = "The first request with this Idempotency-Key is still in progress. Retry later."
    retry_after = 1


class _AnsweredMeanwhile(Exception):
    """Another request with the key has committed since this one looked."""


class _KeptAnswer:
    """Keeps the answer of the present request under its key."""

    def __init__(self, scope: str, fingerprint: str, answer: Callable[[Any], Response]) -> None:
        self._scope = scope
        self._fingerprint = fingerprint
        self._answer = answer
        self.response: Response | None = None

    def begin(self) -> None:
        """Claim the key. Waits for another request that holds it. Raises RequestInProgress."""
        session = require_transaction()
        now = services().clock.now()
        try:
            with statement_timeout(session, MAX_WAIT_SECONDS):
                session.execute(
                    delete(_table).where(
                        _table.c.scope_hash == self._scope, _table.c.expires_at <= now
                    )
                )
                session.execute(
                    insert(_table).values(
                        scope_hash=self._scope,
                        request_hash=self._fingerprint,
                        status=0,
                        headers={},
                        body=b"",
                        created_at=now,
                        expires_at=now + KEPT_FOR,
                    )
                )
        except IntegrityError as exc:
            raise _AnsweredMeanwhile() from exc
        except OperationalError as exc:
            if isinstance(exc.orig, pg_errors.LockNotAvailable | pg_errors.QueryCanceled):
                raise RequestInProgress() from exc
            raise

    def keep(self, result: Any, *, user_id: UUID | None = None) -> None:
        """Keep the answer in the transaction of its effect."""
        self.response = response = self._answer(result)
        require_transaction().execute(
            update(_table)
            .where(_table.c.scope_hash == self._scope)
            .values(
                status=response.status_code,
                headers={n: response.headers[n] for n in KEPT_HEADERS if n in response.headers},
                body=response.get_data(),
                user_id=user_id,
            )
        )


class _NotKept:
    """Makes the answer and keeps nothing: the request has no key."""

    def __init__(self, answer: Callable[[Any], Response]) -> None:
        self._answer = answer
        self.response: Response | None = None

    def begin(self) -> None:
        """Claim nothing."""

    def keep(self, result: Any, *, user_id: UUID | None = None) -> None:
        """Make the answer."""
        self.response = self._answer(result)


def idempotent(
    answer: Callable[[Any], Response],
) -> Callable[[Callable[..., None]], Callable[..., Response]]:
    """Give the view `once=`, to be handed to the use case; `answer` makes the response of its
    result.

    Raises InvalidIdempotencyKey, IdempotencyKeyReused, RequestInProgress.
    """

    def decorate(view: Callable[..., None]) -> Callable[..., Response]:
        @wraps(view)
        def wrapped(*args: Any, **kwargs: Any) -> Response:
            key = request.headers.get("Idempotency-Key")
            if key is None:
                return _run(view, _NotKept(answer), args, kwargs)
            if not KEY.fullmatch(key):
                raise InvalidIdempotencyKey()
            scope, fingerprint = _scope(key), _fingerprint()
            kept = _replayed(scope, fingerprint)
            if kept is not None:
                return kept
            try:
                return _run(view, _KeptAnswer(scope, fingerprint, answer), args, kwargs)
            except _AnsweredMeanwhile:
                kept = _replayed(scope, fingerprint)
                if kept is None:
                    raise RequestInProgress() from None
                return kept

        wrapped.idempotent = True  # type: ignore[attr-defined]
        return wrapped

    return decorate


def _run(
    view: Callable[..., None], once: "_KeptAnswer | _NotKept", args: Any, kwargs: Any
) -> Response:
    keeper: IdempotencyStore = once
    view(*args, once=keeper, **kwargs)
    if once.response is None:
        raise RuntimeError("the use case did not keep its answer")
    return once.response


def _replayed(scope: str, fingerprint: str) -> Response | None:
    query = select(_table).where(
        _table.c.scope_hash == scope, _table.c.expires_at > services().clock.now()
    )
    with reading() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if not hmac.compare_digest(row.request_hash, fingerprint):
        raise IdempotencyKeyReused()
    response = Response(row.body, row.status)
    for name, value in row.headers.items():
        response.headers[name] = value
    response.headers["Idempotent-Replay"] = "true"
    g.idempotent_replay = True
    return response


def _scope(key: str) -> str:
    """Return what a key is unique within: the caller, the method and the path.

    Callers without a token are kept apart by their networks: none gets the answer of another.
    """
    actor = current_actor()
    caller = f"network:{client_network()}" if actor.id is None else f"{actor.type}:{actor.id}"
    parts = "\0".join((caller, request.method, request.path.rstrip("/"), key))
    return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()


def _fingerprint() -> str:
    # Keyed: the body holds a password, and a plain digest of it could be searched.
    secret = services().settings.secret_key.encode()
    return hmac.new(secret, b"idempotency\0" + read_body(), hashlib.sha256).hexdigest()
