"""What views read about the request: the services, and the state of this request."""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar, cast
from uuid import UUID

from flask import current_app

from userapi.actor import Actor
from userapi.authentication.token_claims import AccessClaims
from userapi.errors import Unauthenticated
from userapi.infrastructure.rate_counters import Hit
from userapi.machines.status import KeyReference, LiveKey
from userapi.sessions.status import LiveSession
from userapi.wiring.services import Services

EXTENSION = "userapi"

T = TypeVar("T")

NOBODY = Actor()

# User, session and version of the session.
SessionKey = tuple[UUID, UUID, int]


@dataclass(slots=True, kw_only=True)
class RequestState:
    """What one request stores: hooks and guards write it, views and hooks read it."""

    started: float = field(default_factory=time.perf_counter)
    correlation_id: str | None = None
    actor: Actor = NOBODY
    response_headers: list[tuple[str, str]] = field(default_factory=list)
    problem_code: str = ""
    """The code of the problem that was returned; empty for a success."""

    claims: AccessClaims | None = None
    live_session: LiveSession | None = None
    may_only_enroll: bool = False
    """Whether the user must add a second factor before any other request."""
    cached_session: tuple[SessionKey, object] | None = None
    """The reply of Redis about a session, fetched together with the rate limit."""
    checked_session: tuple[SessionKey, LiveSession | Unauthenticated] | None = None
    """The result of checking whether a session is live."""

    key_reference: KeyReference | None = None
    """The API key or client token that the request presents."""
    cached_key: object = None
    """The reply of Redis about this key, fetched together with the rate limit."""
    checked_key: LiveKey | Unauthenticated | None = None
    """The result of checking whether this key is live."""
    live_key: LiveKey | None = None

    hit: Hit | None = None
    """The latest count of a rate limit."""
    rate_limit_key: str = ""
    """The user or network that the default rate limit counted."""


# Not on `flask.g`: a request reads it a dozen times, and each access through that proxy costs half
# a microsecond.
_state: ContextVar[RequestState] = ContextVar("userapi.request_state")


def start_request_state() -> RequestState:
    """Return the state of the request that begins, before any hook runs."""
    state = RequestState()
    _state.set(state)
    return state


def request_state() -> RequestState:
    """Return the state of this request."""
    return _state.get()


def unproxied(proxy: T) -> T:
    """Return the object behind Flask's `request` or `current_app`.

    For hooks of every request: each access through the proxy costs half a microsecond, and about
    fifty of them were a tenth of the time of a token check. Werkzeug documents this method, though
    its name begins with an underscore.
    """
    current: T = proxy._get_current_object()  # type: ignore[attr-defined]
    return current


def services() -> Services:
    """Return the services of the running application."""
    return cast(Services, unproxied(current_app).extensions[EXTENSION])


def current_actor() -> Actor:
    """Return the actor of this request; anonymous on endpoints that need no token."""
    return request_state().actor


def current_claims() -> AccessClaims:
    """Return the claims of this request's access token, on an endpoint that requires one."""
    claims = request_state().claims
    if claims is None:
        raise RuntimeError("the endpoint does not require a token")
    return claims


def current_session() -> LiveSession:
    """Return the live session of this request, on an endpoint that requires one."""
    session = request_state().live_session
    if session is None:
        raise RuntimeError("the endpoint does not require a session")
    return session


def current_caller() -> LiveSession | LiveKey:
    """Return the live session or the live key of this request, on an endpoint that requires one."""
    state = request_state()
    return state.live_key if state.live_key is not None else current_session()


def credential_expiry() -> datetime | None:
    """Return when the token or key of this request expires; None for a key without an end."""
    state = request_state()
    reference = state.key_reference
    if reference is None:
        return datetime.fromtimestamp(current_claims().expires_at, UTC)
    if reference.claims is not None:
        return datetime.fromtimestamp(reference.claims.expires_at, UTC)
    return None if state.live_key is None else state.live_key.expires_at
