"""The actor of a job, stored with it until the worker acts on their behalf."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from userapi.actor import Actor, ActorType
from userapi.permissions import PermissionSet


def stored_actor(actor: Actor) -> dict[str, Any]:
    """Return what is stored of an actor. The id has a separate column."""
    return {
        "type": str(actor.type),
        "username": actor.username,
        "session_id": str(actor.session_id) if actor.session_id else None,
        "permissions": list(actor.permissions),
        "ip_address": actor.ip_address,
        "user_agent": actor.user_agent,
        "correlation_id": actor.correlation_id,
        "traceparent": actor.traceparent,
    }


def restored_actor(
    stored: Mapping[str, Any], *, user_id: UUID, permissions: PermissionSet
) -> Actor:
    """Return the stored actor with their current permissions."""
    return Actor(
        type=ActorType(stored["type"]),
        id=user_id,
        username=stored["username"],
        session_id=UUID(stored["session_id"]) if stored["session_id"] else None,
        permissions=permissions,
        ip_address=stored["ip_address"],
        user_agent=stored["user_agent"],
        correlation_id=stored["correlation_id"],
        traceparent=stored["traceparent"],
    )
