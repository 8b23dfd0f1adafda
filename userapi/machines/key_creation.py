"""Creation of an API key. Its text is returned once and never stored."""

from dataclasses import asdict, dataclass
from typing import Any

from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.errors import require_all
from userapi.events.catalogue import EventType
from userapi.infrastructure.database import new_id, transaction
from userapi.infrastructure.idempotency_keys import IdempotencyStore
from userapi.machines.errors import PersonalKeysDisabled
from userapi.machines.key_owners import KeyOwner, KeyOwners
from userapi.machines.key_text import generate_key
from userapi.machines.keys import ApiKeys
from userapi.machines.models import OwnerType
from userapi.machines.networks import parse_networks
from userapi.machines.validation import (
    UNSET,
    Expiry,
    KeyLifetimes,
    require_key_name,
    require_permissions,
)
from userapi.machines.views import KeyView
from userapi.recorder import Recorder


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApiKey:
    """An API key to create. Without a list of permissions, it has all permissions of its owner."""

    name: str
    expires_at: Expiry = UNSET
    permissions: list[str] | None = None
    allowed_networks: list[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedKey:
    """A new key with its text, which cannot be read again."""

    view: KeyView
    text: str


class KeyCreation:
    """Creates API keys."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        keys: ApiKeys,
        owners: KeyOwners,
        lifetimes: KeyLifetimes,
        prefix: str,
        personal_keys: bool,
    ) -> None:
        self._recorder = recorder
        self._keys = keys
        self._owners = owners
        self._lifetimes = lifetimes
        self._prefix = prefix
        self._personal_keys = personal_keys

    def create(
        self,
        owner: KeyOwner,
        new: NewApiKey,
        *,
        actor: Actor,
        idempotency: IdempotencyStore | None = None,
    ) -> CreatedKey:
        """Create a key for an owner, who may be suspended.

        Raises UserNotFound, ServiceAccountNotFound, SelfActionRefused, InsufficientRank,
        PersonalKeysDisabled, Invalid, PermissionEscalation, KeyLimitReached.
        """
        if owner.type is OwnerType.USER and not self._personal_keys:
            raise PersonalKeysDisabled()
        self.require_valid(asdict(new))
        now = self._recorder.now()
        expires_at = self._lifetimes.expiry_of(new.expires_at, now)
        networks = None if new.allowed_networks is None else parse_networks(new.allowed_networks)
        key_id = new_id()
        generated = generate_key(self._prefix, owner.type, key_id)
        with transaction() as session:
            if idempotency:
                idempotency.claim()
            locked = self._owners.lock(session, owner, actor=actor)
            locked.require_holds(new.permissions)
            self._keys.require_room(session, owner)
            key = self._keys.new_key(
                owner,
                key_id,
                generated,
                actor=actor,
                name=new.name,
                permissions=new.permissions,
                allowed_networks=networks,
                created_at=now,
                expires_at=expires_at,
            )
            session.add(key)
            session.flush()
            view = self._keys.record(
                key, locked, AuditAction.API_KEY_CREATED, EventType.API_KEY_CREATED, actor=actor
            )
            created = CreatedKey(view=view, text=generated.text)
            if idempotency:
                idempotency.store(created, user_id=owner.id)
        return created

    def require_valid(self, given: dict[str, Any]) -> None:
        """Raise Invalid with every rule that the given fields break. Missing fields break none."""
        name, networks = given.get("name"), given.get("allowed_networks")
        permissions = given.get("permissions")
        require_all(
            lambda: None if name is None else require_key_name(name),
            lambda: None if permissions is None else require_permissions(permissions),
            lambda: None if networks is None else parse_networks(networks),
            lambda: self._lifetimes.expiry_of(given.get("expires_at", UNSET), self._recorder.now()),
        )
