"""Editing of an API key: its name, its permissions, its networks."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.errors import require_all
from userapi.infrastructure.database import transaction
from userapi.machines.errors import KeyNotActive
from userapi.machines.key_owners import KeyOwner, KeyOwners
from userapi.machines.keys import ApiKeys
from userapi.machines.networks import parse_networks
from userapi.machines.validation import require_key_name, require_permissions
from userapi.machines.views import KeyView


class KeyEditing:
    """Changes API keys. The change applies to the next request."""

    def __init__(self, *, keys: ApiKeys, owners: KeyOwners) -> None:
        self._keys = keys
        self._owners = owners

    def update(
        self, owner: KeyOwner, key_id: UUID, changes: Mapping[str, Any], *, actor: Actor
    ) -> KeyView:
        """Change the given fields of a key and keep the others.

        Raises UserNotFound, ServiceAccountNotFound, SelfActionRefused, InsufficientRank,
        ApiKeyNotFound, KeyNotActive, Invalid, PermissionEscalation.
        """
        require_valid_changes(changes)
        values = dict(changes)
        if values.get("allowed_networks") is not None:
            values["allowed_networks"] = parse_networks(values["allowed_networks"])
        with transaction() as session:
            locked = self._owners.lock(session, owner, actor=actor)
            key = self._keys.locked(session, owner, key_id)
            if not self._keys.is_active(key):
                raise KeyNotActive()
            if "permissions" in values:
                locked.require_holds(values["permissions"])
            changed = {
                name: (getattr(key, name), value)
                for name, value in values.items()
                if getattr(key, name) != value
            }
            if not changed:
                return self._keys.view(key)
            for name, value in values.items():
                setattr(key, name, value)
            self._keys.changed(key)
            self._owners.invalidate_tokens(locked)
            session.flush()
            return self._keys.record(
                key, locked, AuditAction.API_KEY_UPDATED, None, actor=actor, changes=changed
            )


def require_valid_changes(given: Mapping[str, Any]) -> None:
    """Raise Invalid with every rule that the given fields break. Missing fields break none."""
    name, networks = given.get("name"), given.get("allowed_networks")
    permissions = given.get("permissions")
    require_all(
        lambda: None if name is None else require_key_name(name),
        lambda: None if permissions is None else require_permissions(permissions),
        lambda: None if networks is None else parse_networks(networks),
    )
