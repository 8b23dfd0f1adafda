"""Who may call an endpoint. Each says it with `@requires`, `@signed_in` or `@public`, directly
under its route, so that 401 and 403 come before anything about the body.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast
from uuid import UUID

from flask import g, request, session

from userapi.actor import Actor, ActorType, Concealed, PermissionDenied
from userapi.authentication.refusals import AuthenticationRequired, TokenInvalid
from userapi.authentication.token_status import SessionReference
from userapi.characters import without_controls
from userapi.errors import Forbidden, Unauthenticated
from userapi.permissions import Permission
from userapi.sessions.status import LiveSession

from .bodies import refuse_query
from .context import current_actor, present, services

View = TypeVar("View", bound=Callable[..., Any])


class PasswordChangeRequired(Forbidden):
    """The user has to set a new password before anything else."""

    code = "password_change_required"
    title = "Change your password first."


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserSession:
    """Which session a browser's cookie stands for."""

    user_id: UUID
    session_id: UUID
    session_version: int


def requires(
    *permissions: Permission,
    or_self: str | None = None,
    unless: Callable[[], bool] | None = None,
    missing: Callable[[], Permission | None] | None = None,
) -> Callable[[View], View]:
    """Require one of the permissions.

    With `or_self` also the user whom that argument of the view names. What one may neither change
    nor see is not there: reading it is a 404 for somebody who may read no other users. `unless`
    tells whether the operator has opened the endpoint to everybody. `missing` tells which of the
    permissions this request needs, so that the refusal names that one.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if unless is None or not unless():
                authenticate()
                actor = current_actor()
                is_self = or_self is not None and actor.is_user(cast(UUID, kwargs[or_self]))
                if not is_self and not any(p in actor.permissions for p in permissions):
                    hidden = or_self is not None and request.method in {"GET", "HEAD"}
                    if hidden and Permission.USERS_READ not in actor.permissions:
                        raise Concealed(permissions[0])
                    named = missing() if missing is not None else None
                    raise PermissionDenied(named or permissions[0])
            _check_query(view)
            return view(*args, **kwargs)

        access = " or ".join(permissions)
        return _tagged(guarded, view, access=access, or_self=or_self is not None)

    return decorate


def signed_in(view: View) -> View:
    """Let in every signed-in user: the endpoint is about themselves."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        authenticate(password_change_pending=getattr(view, "open_to_password_change", False))
        _check_query(view)
        return view(*args, **kwargs)

    return _tagged(guarded, view, access="self")


def token_holder(view: View) -> View:
    """Require a genuine token, also of an ended session."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        g.claims = services().token_status.verify_access(bearer_token())
        _check_query(view)
        return view(*args, **kwargs)

    return _tagged(guarded, view, access="self")


def public(view: View) -> View:
    """Let in everybody; no token is looked at."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        _check_query(view)
        return view(*args, **kwargs)

    return _tagged(guarded, view, access="public")


def open_to_password_change(view: View) -> View:
    """Mark a view as one that a session may use whose user must change the password."""
    view.open_to_password_change = True  # type: ignore[attr-defined]
    return view


def bearer_token() -> str:
    """Return the token of the request. Raises AuthenticationRequired, TokenInvalid.

    The scheme is case-insensitive (RFC 9110 §11.1).
    """
    header = request.headers.get("Authorization")
    if header is None:
        raise AuthenticationRequired()
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        raise AuthenticationRequired()
    token = token.strip()
    if not token or " " in token:
        raise TokenInvalid()
    return token


def authenticate(*, password_change_pending: bool = False) -> None:
    """Make whoever the token speaks for the actor of this request.

    What they may do comes from the live session and not from the token, so a change of role or
    status holds from the next request on.
    """
    all_services, state = services(), present(g)
    claims = state.get("claims") or all_services.token_status.verify_access(bearer_token())
    live = require_live(claims)
    caller: Actor = state.actor
    state.claims, state.live_session = claims, live
    state.actor = Actor(
        type=ActorType.USER,
        id=live.user_id,
        username=live.username,
        session_id=live.session_id,
        permissions=all_services.roles.graph(live.catalogue_version).effective(live.roles),
        ip_address=caller.ip_address,
        user_agent=caller.user_agent,
        correlation_id=caller.correlation_id,
        traceparent=caller.traceparent,
    )
    if live.must_change_password and not password_change_pending:
        raise PasswordChangeRequired()


def browser_session() -> BrowserSession | None:
    """Return which session the cookie stands for, whether or not it still lives."""
    if "session_id" not in session:
        return None
    return BrowserSession(
        user_id=UUID(session["user_id"]),
        session_id=UUID(session["session_id"]),
        session_version=session["version"],
    )


def require_live(own: SessionReference) -> LiveSession:
    """Return the live session behind the token or cookie of this request, looked up once.

    Raises TokenRevoked, TokenInvalid.
    """
    state, asked = present(g), _version_of(own)
    found: LiveSession | Unauthenticated | None = state.get("found_sessions", {}).get(asked)
    if found is None:
        answer = state.get("session_answers", {}).get(asked)
        try:
            found = services().token_status.require_live(own, reply=answer)
        except Unauthenticated as refusal:
            found = refusal
        state.found_sessions = {asked: found}
    if isinstance(found, Unauthenticated):
        raise found
    return found


def keep_answer(own: SessionReference, answer: object) -> None:
    """Keep what Redis has answered about this session for `require_live`."""
    g.session_answers = {_version_of(own): answer}


def _version_of(own: SessionReference) -> tuple[UUID, UUID, int]:
    return own.user_id, own.session_id, own.session_version


def anonymous_actor(*, correlation_id: str, traceparent: str | None) -> Actor:
    """Return the actor that every request begins with."""
    asked = present(request)
    return Actor(
        ip_address=asked.remote_addr,
        user_agent=without_controls(asked.headers.get("User-Agent", "")) or None,
        correlation_id=correlation_id,
        traceparent=traceparent,
    )


def _check_query(view: Callable[..., Any]) -> None:
    if request.query_string and not getattr(view, "takes_query", False):
        refuse_query()


def _tagged(guarded: Any, view: View, *, access: str, or_self: bool = False) -> View:
    """Say on the view function who may call it, for the document and for the tests."""
    guarded.access = access
    guarded.access_or_self = or_self
    guarded._apidoc = dict(getattr(view, "_apidoc", {})) | {"access": access}
    return cast(View, guarded)
