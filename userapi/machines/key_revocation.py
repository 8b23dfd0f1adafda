"""Revocation of API keys. It applies to the next request, in every process."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.orm import Session

from userapi.accounts.models import User
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.events.catalogue import EventType
from userapi.infrastructure.database import transaction
from userapi.machines.key_owners import KeyOwner, KeyOwners, LockedOwner, user_owner
from userapi.machines.keys import ApiKeys
from userapi.machines.models import ApiKey, RevocationReason
from userapi.recorder import Recorder


class KeyRevocation:
    """Revokes API keys."""

    def __init__(self, *, recorder: Recorder, keys: ApiKeys, owners: KeyOwners) -> None:
        self._recorder = recorder
        self._keys = keys
        self._owners = owners

    def revoke(self, owner: KeyOwner, key_id: UUID, *, actor: Actor) -> None:
        """Revoke a key. Does nothing if it has ended.

        Raises UserNotFound, ServiceAccountNotFound, SelfActionRefused, InsufficientRank,
        ApiKeyNotFound.
        """
        with transaction() as session:
            locked = self._owners.lock(session, owner, actor=actor)
            key = self._keys.locked(session, owner, key_id)
            if self._keys.is_active(key):
                self.end(session, [key], locked, actor=actor, reason=RevocationReason.REVOKED)

    def revoke_all(self, owner: KeyOwner, *, actor: Actor) -> int:
        """Revoke every active key of an owner; return how many. Raises as `revoke` does."""
        with transaction() as session:
            locked = self._owners.lock(session, owner, actor=actor)
            active = self._keys.active_of(session, owner)
            self.end(session, active, locked, actor=actor, reason=RevocationReason.REVOKED)
            return len(active)

    # Steps of other use cases, inside their transaction

    def revoke_of_user(self, session: Session, user: User, *, actor: Actor) -> None:
        """Revoke the keys of a locked user whose password was reset by mail."""
        active = self._keys.active_of(session, user_owner(user.id))
        if active:
            owner = self._owners.of_user(session, user)
            self.end(session, active, owner, actor=actor, reason=RevocationReason.PASSWORD_RESET)

    def end(
        self,
        session: Session,
        revoked: Sequence[ApiKey],
        owner: LockedOwner,
        *,
        actor: Actor,
        reason: RevocationReason,
    ) -> None:
        """Revoke locked keys of a locked owner, with their audit rows and events."""
        if not revoked:
            return
        now = self._recorder.now()
        for key in revoked:
            key.revoked_at, key.revoked_reason, key.notify_at = now, reason, None
            key.version += 1
        self._keys.revoked(owner.facts.id, revoked)
        self._owners.invalidate_tokens(owner)
        session.flush()
        for key in revoked:
            self._keys.record(
                key,
                owner,
                AuditAction.API_KEY_REVOKED,
                EventType.API_KEY_REVOKED,
                actor=actor,
                reason=reason,
            )
