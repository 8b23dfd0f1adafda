"""What a view asks of the request: the services, and who acts."""

from typing import TypeVar, cast

from flask import current_app, g

from userapi.actor import Actor
from userapi.authentication.token_claims import AccessClaims
from userapi.sessions.status import LiveSession
from userapi.wiring import Services

EXTENSION = "userapi"

Thing = TypeVar("Thing")


def present(proxy: Thing) -> Thing:
    """Return what Flask's `g` or `request` stands for now.

    For what runs around every request: each look through the proxy takes half a microsecond, and
    some fifty of them were a tenth of checking a token.
    """
    thing: Thing = proxy._get_current_object()  # type: ignore[attr-defined]
    return thing


def services() -> Services:
    """Return the services of the running application."""
    return cast(Services, current_app.extensions[EXTENSION])


def current_actor() -> Actor:
    """Return who makes this request; anonymous where no token was asked for."""
    return cast(Actor, g.actor)


def current_claims() -> AccessClaims:
    """Return what the access token of this request says."""
    return cast(AccessClaims, g.claims)


def current_session() -> LiveSession:
    """Return the live session behind the access token of this request."""
    return cast(LiveSession, g.live_session)
