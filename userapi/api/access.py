"""Who may call an endpoint.

Each view declares it with `@requires`, `@signed_in`, `@token_holder` or `@public`, directly below
its route, so that 401 and 403 precede every error about the body.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast
from uuid import UUID

from flask import request, session

from userapi.actor import Actor, ActorType, Concealed, PermissionDenied
from userapi.authentication.token_status import SessionReference
from userapi.characters import without_controls
from userapi.errors import Unauthenticated
from userapi.machines.status import KeyReference
from userapi.permissions import NO_PERMISSIONS, Permission
from userapi.sessions.status import LiveSession

from .blueprint import declare
from .bodies import refuse_query
from .client_credentials import authenticate_client, sends_client_credentials
from .context import SessionKey, current_actor, request_state, services, unproxied
from .credentials import Credentials, require_credential
from .key_access import authenticate_by_key, require_presented
from .restrictions import (
    declare_restrictions,
    require_enabled,
    require_fresh,
    require_open,
)

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserSession:
    """The session that a browser's cookie refers to."""

    user_id: UUID
    session_id: UUID
    session_version: int


def requires(
    *permissions: Permission,
    or_self: str | None = None,
    unless: Callable[[], bool] | None = None,
    needed: Callable[[], Sequence[Permission]] = lambda: (),
    credentials: Credentials = Credentials.ANY,
    clients: bool = False,
) -> Callable[[View], View]:
    """Require one of the permissions.

    `or_self` names the argument of the view with the id of a user, who may also call it. A caller
    who may read no other users gets 404 instead of 403 when reading one. `unless` returns whether
    the operator has made the endpoint public. `needed` returns the permissions that this request
    needs, if its body can be read: a refusal names the first, and each may need a step-up. With
    `clients`, services may authenticate by Basic as well.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if unless is None or not unless():
                if clients and sends_client_credentials():
                    authenticate_client()
                else:
                    authenticate()
                actor = current_actor()
                require_credential(actor, credentials, named=permissions)
                require_open(view)
                if or_self is None or not actor.is_session_of(cast(UUID, kwargs[or_self])):
                    _require_one_of(permissions, hides=or_self is not None, needed=needed)
                require_fresh(view)
            _check_query(view)
            return view(*args, **kwargs)

        access = " or ".join(permissions)
        return declare_restrictions(
            _tagged(
                guarded,
                view,
                access=access,
                or_self=or_self is not None,
                credentials=credentials,
                clients=clients,
            )
        )

    return decorate


def signed_in(view: View) -> View:
    """Require a live session and no permission: the endpoint is about the caller."""
    return identified(Credentials.INTERACTIVE)(view)


def identified(credentials: Credentials) -> Callable[[View], View]:
    """Require a caller with one of these credentials, and no permission."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            authenticate()
            require_credential(current_actor(), credentials)
            require_open(view)
            require_fresh(view)
            _check_query(view)
            return view(*args, **kwargs)

        return declare_restrictions(_tagged(guarded, view, access="self", credentials=credentials))

    return decorate


def token_holder(view: View) -> View:
    """Require a token with a valid signature; its session may have ended."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        found = require_presented()
        if isinstance(found, KeyReference):
            authenticate_by_key(found)
            require_credential(current_actor(), Credentials.INTERACTIVE)
        _check_query(view)
        return view(*args, **kwargs)

    return _tagged(guarded, view, access="self", credentials=Credentials.INTERACTIVE)


def public(view: View) -> View:
    """Require nothing; a token is ignored."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        require_enabled(view)
        _check_query(view)
        return view(*args, **kwargs)

    return _tagged(guarded, view, access="public", credentials=None)


def authenticate() -> None:
    """Make the user of the token, or the owner of the key, the actor of this request."""
    claims = require_presented()
    if isinstance(claims, KeyReference):
        authenticate_by_key(claims)
    else:
        act_as_user_of(require_live(claims))


def act_as_user_of(live: LiveSession) -> None:
    """Make the user of a live session the actor of this request.

    Permissions come from the live session and not from the token, so a change of roles or status
    applies to the next request. A restricted session has none.
    """
    all_services, state = services(), request_state()
    graph = all_services.roles.graph(live.catalogue_version)
    state.live_session = live
    state.may_only_enroll = all_services.mfa_enforcement.may_only_enroll(
        live.authentication, live, graph
    )
    is_restricted = live.must_change_password or state.may_only_enroll
    caller = state.actor
    state.actor = Actor(
        type=ActorType.USER,
        id=live.user_id,
        username=live.username,
        session_id=live.session_id,
        permissions=NO_PERMISSIONS if is_restricted else graph.effective(live.roles),
        withheld=all_services.freshness.withheld(live),
        ip_address=caller.ip_address,
        user_agent=caller.user_agent,
        correlation_id=caller.correlation_id,
        traceparent=caller.traceparent,
    )


def _require_one_of(
    permissions: tuple[Permission, ...],
    *,
    hides: bool,
    needed: Callable[[], Sequence[Permission]],
) -> None:
    """Raise PermissionDenied or Concealed without one of the permissions.

    Raises InsufficientUserAuthentication if a step-up must precede the use of the permission. If
    several would do and `needed` returns none, the use case requires the one it needs.
    """
    actor = current_actor()
    held = [permission for permission in permissions if permission in actor.permissions]
    if not held:
        hidden = hides and request.method in {"GET", "HEAD"}
        if hidden and Permission.USERS_READ not in actor.permissions:
            raise Concealed(permissions[0])
        raise PermissionDenied(next(iter(needed()), permissions[0]))
    if actor.withheld is None:
        return
    named = needed()
    if named:
        for permission in named:
            if permission in held:
                actor.require_step_up(permission)
    elif all(permission in actor.withheld.permissions for permission in held):
        actor.require_step_up(held[0])


def browser_session() -> BrowserSession | None:
    """Return the session that the cookie refers to, live or ended."""
    if "session_id" not in session:
        return None
    return BrowserSession(
        user_id=UUID(session["user_id"]),
        session_id=UUID(session["session_id"]),
        session_version=session["version"],
    )


def require_live(own: SessionReference) -> LiveSession:
    """Return the live session of this request's token or cookie. Checked once per request.

    Raises TokenRevoked, TokenInvalid.
    """
    state, key = request_state(), _key_of(own)
    checked = state.checked_session
    if checked is None or checked[0] != key:
        checked = state.checked_session = key, _check_live(own, key)
    result = checked[1]
    if isinstance(result, Unauthenticated):
        raise result
    return result


def _check_live(own: SessionReference, key: SessionKey) -> LiveSession | Unauthenticated:
    cached = request_state().cached_session
    reply = cached[1] if cached is not None and cached[0] == key else None
    try:
        return services().token_status.require_live(own, reply=reply)
    except Unauthenticated as refusal:
        return refusal


def use_cached_session(own: SessionReference, reply: object) -> None:
    """Store the reply of Redis about this session for `require_live`."""
    request_state().cached_session = _key_of(own), reply


def _key_of(own: SessionReference) -> SessionKey:
    return own.user_id, own.session_id, own.session_version


def anonymous_actor(*, correlation_id: str, traceparent: str | None) -> Actor:
    """Return the actor of a request before it is authenticated."""
    current = unproxied(request)
    return Actor(
        ip_address=current.remote_addr,
        user_agent=without_controls(current.environ.get("HTTP_USER_AGENT", "")) or None,
        correlation_id=correlation_id,
        traceparent=traceparent,
    )


def _check_query(view: Callable[..., Any]) -> None:
    if request.query_string and not getattr(view, "accepts_query", False):
        refuse_query()


def _tagged(
    guarded: Any,
    view: View,
    *,
    access: str,
    credentials: Credentials | None,
    or_self: bool = False,
    clients: bool = False,
) -> View:
    """Declare on the view function who may call it, for the OpenAPI document and the tests."""
    guarded.access = access
    guarded.access_or_self = or_self
    guarded.credentials = credentials
    guarded.accepts_clients = clients
    return cast(View, declare(guarded, access=access, clients=clients, credentials=credentials))
