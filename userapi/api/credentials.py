"""Which kinds of credential an endpoint accepts: sessions of users, API keys, client tokens."""

from enum import StrEnum
from typing import NoReturn

from userapi.actor import Actor, ActorType
from userapi.errors import Forbidden
from userapi.permissions import Permission


class InteractiveSessionRequired(Forbidden):
    """The endpoint accepts no API key, or not one with these permissions."""

    code = "interactive_session_required"
    title = "Log in to do this. This API key cannot."


class UserRequired(Forbidden):
    """The endpoint is about a person, and the caller is a service."""

    code = "user_required"
    title = "This endpoint is for users. Services cannot call it."


class Credentials(StrEnum):
    """The kinds of credential that an endpoint accepts in addition to sessions of users."""

    ANY = "any"
    """Sessions, API keys and client tokens."""
    INTERACTIVE = "interactive"
    """Sessions only."""
    NAMED = "named"
    """Also keys whose list names the permission of the endpoint literally."""
    PEOPLE = "people"
    """Sessions and personal keys."""


def require_credential(
    actor: Actor, credentials: Credentials, *, named: tuple[Permission, ...] = ()
) -> None:
    """Raise UserRequired or InteractiveSessionRequired for a kind that is not accepted."""
    if actor.key_id is None or credentials is Credentials.ANY:
        return
    if credentials is Credentials.NAMED:
        if not any(permission in (actor.key_permissions or ()) for permission in named):
            raise InteractiveSessionRequired()
        return
    if credentials is Credentials.INTERACTIVE or actor.type is ActorType.SERVICE:
        refuse_key(actor)


def refuse_key(actor: Actor) -> NoReturn:
    """Raise the error that says that a user must log in for this."""
    raise refusal_of_key(actor.type)


def refusal_of_key(owner: ActorType) -> UserRequired | InteractiveSessionRequired:
    """Return the error for a key of a user or a service that says that a user must log in."""
    return UserRequired() if owner is ActorType.SERVICE else InteractiveSessionRequired()
