"""Rotation of an API key: a new key takes over, and the old one works for a while longer."""

from datetime import datetime, timedelta
from uuid import UUID

from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.events.catalogue import EventType
from userapi.infrastructure.database import new_id, transaction
from userapi.infrastructure.idempotency_keys import IdempotencyStore
from userapi.machines.errors import KeyAlreadyRotated, KeyNotActive, PersonalKeysDisabled
from userapi.machines.key_creation import CreatedKey
from userapi.machines.key_owners import KeyOwner, KeyOwners
from userapi.machines.key_revocation import KeyRevocation
from userapi.machines.key_text import generate_key
from userapi.machines.keys import ApiKeys
from userapi.machines.models import ApiKey, OwnerType, RevocationReason
from userapi.machines.validation import UNSET, Expiry, KeyLifetimes
from userapi.recorder import Recorder

DEFAULT_OVERLAP = timedelta(days=1)
MAX_OVERLAP = timedelta(days=7)


class KeyRotation:
    """Replaces API keys."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        keys: ApiKeys,
        owners: KeyOwners,
        revocation: KeyRevocation,
        lifetimes: KeyLifetimes,
        prefix: str,
        personal_keys: bool,
    ) -> None:
        self._recorder = recorder
        self._keys = keys
        self._owners = owners
        self._revocation = revocation
        self._lifetimes = lifetimes
        self._prefix = prefix
        self._personal_keys = personal_keys

    def rotate(
        self,
        owner: KeyOwner,
        key_id: UUID,
        *,
        actor: Actor,
        overlap: timedelta = DEFAULT_OVERLAP,
        expires_at: Expiry = UNSET,
        idempotency: IdempotencyStore | None = None,
    ) -> CreatedKey:
        """Create a key like this one. The old key ends after the overlap, or now without one.

        Of concurrent rotations one succeeds. Raises UserNotFound, ServiceAccountNotFound,
        SelfActionRefused, InsufficientRank, ApiKeyNotFound, PersonalKeysDisabled,
        KeyAlreadyRotated, KeyNotActive, Invalid, KeyLimitReached.
        """
        if owner.type is OwnerType.USER and not self._personal_keys:
            raise PersonalKeysDisabled()
        self.require_valid_expiry(expires_at)
        new_key_id = new_id()
        generated = generate_key(self._prefix, owner.type, new_key_id)
        now = self._recorder.now()
        with transaction() as session:
            if idempotency:
                idempotency.claim()
            locked = self._owners.lock(session, owner, actor=actor)
            old = self._keys.locked(session, owner, key_id)
            if old.replaced_by is not None:
                raise KeyAlreadyRotated()
            if not self._keys.is_active(old):
                raise KeyNotActive()
            if overlap:
                self._keys.require_room(session, owner)
            new = self._keys.new_key(
                owner,
                new_key_id,
                generated,
                actor=actor,
                name=old.name,
                permissions=old.permissions,
                allowed_networks=old.allowed_networks,
                created_at=now,
                expires_at=self._expiry(expires_at, old, now),
            )
            new.rotated_from, old.replaced_by = old.id, new.id
            session.add(new)
            self._end_after(old, overlap, now)
            session.flush()
            self._keys.record(
                old,
                locked,
                AuditAction.API_KEY_ROTATED,
                EventType.API_KEY_ROTATED,
                actor=actor,
                details={"replaced_by": str(new.id)},
            )
            if not overlap:
                self._revocation.end(
                    session, [old], locked, actor=actor, reason=RevocationReason.ROTATED
                )
            self._owners.invalidate_tokens(locked)
            created = CreatedKey(view=self._keys.view(new), text=generated.text)
            if idempotency:
                idempotency.store(created, user_id=owner.id)
        return created

    def require_valid_expiry(self, expires_at: Expiry) -> None:
        """Raise Invalid for an end that a new key cannot have."""
        self._lifetimes.expiry_of(expires_at, self._recorder.now())

    def _expiry(self, given: Expiry, old: ApiKey, now: datetime) -> datetime | None:
        if given is not UNSET:
            return self._lifetimes.expiry_of(given, now)
        life = None if old.expires_at is None else old.expires_at - old.created_at
        return self._lifetimes.after(life, now)

    def _end_after(self, old: ApiKey, overlap: timedelta, now: datetime) -> None:
        """End a locked key after the overlap, unless it expires earlier."""
        end = now + overlap
        if overlap and (old.expires_at is None or end < old.expires_at):
            old.expires_at = end
        old.notify_at = None
        self._keys.changed(old)
