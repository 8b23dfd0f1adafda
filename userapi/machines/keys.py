"""Reading API keys, and the steps that every change of one consists of.

The use cases are in separate modules: `key_creation`, `key_editing`, `key_revocation`,
`key_rotation`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from userapi.actor import Actor, ActorType
from userapi.audit.actions import AuditAction
from userapi.audit.masking import Changes
from userapi.events.catalogue import EventType
from userapi.infrastructure.database import after_commit, reading
from userapi.machines.active_keys import is_active_key, keys
from userapi.machines.errors import ApiKeyNotFound, KeyLimitReached
from userapi.machines.events import ApiKeyEvent
from userapi.machines.key_owners import KeyOwner, LockedOwner
from userapi.machines.key_text import NewKeyText
from userapi.machines.models import ApiKey, KeyStatus, OwnerType
from userapi.machines.status import LiveKeys
from userapi.machines.views import KeyView, key_view, status_of
from userapi.recorder import Recorder

# How long expired and revoked keys are listed, and then kept.
ENDED_KEYS_KEPT = timedelta(days=30)
NOTICE = timedelta(days=7)


class ApiKeys:
    """Reads keys. The other methods are steps of use cases, inside their transaction."""

    def __init__(self, *, recorder: Recorder, live: LiveKeys, max_per_owner: int) -> None:
        self._recorder = recorder
        self._live = live
        self._max_per_owner = max_per_owner

    def list_of(self, owner: KeyOwner, *, status: KeyStatus | None = None) -> list[KeyView]:
        """Return the owner's keys, newest first; expired and revoked ones for 30 days."""
        now = self._recorder.now()
        query = (
            select(keys)
            .where(_is_owned_by(owner), _is_listed(now))
            .order_by(keys.c.created_at.desc(), keys.c.id.desc())
        )
        with reading() as connection:
            views = [key_view(row, now) for row in connection.execute(query)]
        return [view for view in views if status is None or view.status is status]

    def get(self, owner: KeyOwner, key_id: UUID) -> KeyView:
        """Return a key of the owner. Raises ApiKeyNotFound."""
        now = self._recorder.now()
        query = select(keys).where(keys.c.id == key_id, _is_owned_by(owner), _is_listed(now))
        with reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise ApiKeyNotFound()
        return key_view(row, now)

    def owner_of(self, key_id: UUID) -> KeyOwner:
        """Return whose key this is. Raises ApiKeyNotFound."""
        query = select(keys.c.user_id, keys.c.service_account_id).where(keys.c.id == key_id)
        with reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise ApiKeyNotFound()
        if row.user_id is not None:
            return KeyOwner(type=OwnerType.USER, id=row.user_id)
        return KeyOwner(type=OwnerType.SERVICE, id=row.service_account_id)

    def all_of_user(self, user_id: UUID) -> Iterator[Mapping[str, Any]]:
        """Return every stored key of a user, for the export of the user's data."""
        now = self._recorder.now()
        query = select(keys).where(keys.c.user_id == user_id).order_by(keys.c.id)
        with reading() as connection:
            views = [key_view(row, now) for row in connection.execute(query)]
        return map(asdict, views)

    # Steps of use cases

    def locked(self, session: Session, owner: KeyOwner, key_id: UUID) -> ApiKey:
        """Lock a key of an owner whose row is locked. Raises ApiKeyNotFound."""
        key = session.get(ApiKey, key_id, with_for_update=True, populate_existing=True)
        if key is None or not owner.owns(key):
            raise ApiKeyNotFound()
        ended_at = ended_at_of(key)
        if ended_at is not None and ended_at <= self._recorder.now() - ENDED_KEYS_KEPT:
            raise ApiKeyNotFound()
        return key

    def active_of(self, session: Session, owner: KeyOwner) -> Sequence[ApiKey]:
        """Lock and return the active keys of an owner whose row is locked."""
        query = (
            select(ApiKey)
            .where(_is_owned_by(owner), is_active_key(self._recorder.now()))
            .order_by(ApiKey.id)
            .with_for_update()
        )
        return session.scalars(query).all()

    def require_room(self, session: Session, owner: KeyOwner) -> None:
        """Raise KeyLimitReached if the locked owner may have no more active keys."""
        query = (
            select(func.count())
            .select_from(keys)
            .where(_is_owned_by(owner), is_active_key(self._recorder.now()))
        )
        if session.execute(query).scalar_one() >= self._max_per_owner:
            raise KeyLimitReached()

    def new_key(
        self,
        owner: KeyOwner,
        key_id: UUID,
        generated: NewKeyText,
        *,
        actor: Actor,
        name: str,
        permissions: list[str] | None,
        allowed_networks: list[str] | None,
        created_at: datetime,
        expires_at: datetime | None,
    ) -> ApiKey:
        """Return a new key, which the caller adds to its transaction."""
        is_user = owner.type is OwnerType.USER
        return ApiKey(
            id=key_id,
            user_id=owner.id if is_user else None,
            service_account_id=None if is_user else owner.id,
            name=name,
            key_hash=generated.digest,
            hint=generated.hint,
            permissions=permissions,
            allowed_networks=allowed_networks,
            version=1,
            created_at=created_at,
            created_by=None if actor.type is ActorType.SYSTEM else actor.id,
            expires_at=expires_at,
            notify_at=notice_time(created_at, expires_at),
        )

    def view(self, key: ApiKey) -> KeyView:
        """Return a key as it is shown now."""
        return key_view(key, self._recorder.now())

    def is_active(self, key: ApiKey) -> bool:
        """Return whether a key is neither revoked nor expired."""
        return status_of(key, self._recorder.now()) is KeyStatus.ACTIVE

    def record(
        self,
        key: ApiKey,
        owner: LockedOwner,
        action: AuditAction,
        event: EventType | None,
        *,
        actor: Actor,
        changes: Changes | None = None,
        reason: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> KeyView:
        """Add the audit row and the event of a change of a key, and return the key."""
        view = self.view(key)
        given = {**view.audit_details, **(details or {})}
        if reason is not None:
            given["reason"] = reason
        self._recorder.audit.record(
            action, actor=actor, target=("api_key", view.id), changes=changes, details=given
        )
        if event is not None:
            self._recorder.outbox.append(
                ApiKeyEvent(type=event, key=view, owner=owner.facts, reason=reason), actor=actor
            )
        return view

    def changed(self, key: ApiKey) -> None:
        """Increment the version of a locked, changed key, and invalidate its copy."""
        key.version += 1
        digest, version, owner_id = key.key_hash, key.version, self.view(key).owner_id
        after_commit(lambda: self._live.key_changed(owner_id, digest, version=version))

    def revoked(self, owner_id: UUID, revoked: Sequence[ApiKey]) -> None:
        """Invalidate the copies of keys of an owner that were revoked."""
        digests = [key.key_hash for key in revoked]
        after_commit(lambda: self._live.keys_revoked(owner_id, digests))


def notice_time(created_at: datetime, expires_at: datetime | None) -> datetime | None:
    """Return when the owner is notified that a key expires; None for a shorter lifetime."""
    if expires_at is None or expires_at - NOTICE <= created_at:
        return None
    return expires_at - NOTICE


def ended_at_of(key: Any) -> datetime | None:
    """Return when a key was revoked or expires, whichever comes first; None for neither."""
    ends = [end for end in (key.revoked_at, key.expires_at) if end is not None]
    return min(ends) if ends else None


def _is_owned_by(owner: KeyOwner) -> ColumnElement[bool]:
    if owner.type is OwnerType.USER:
        return keys.c.user_id == owner.id
    return keys.c.service_account_id == owner.id


def _is_listed(now: datetime) -> ColumnElement[bool]:
    oldest = now - ENDED_KEYS_KEPT
    return or_(keys.c.revoked_at.is_(None), keys.c.revoked_at > oldest) & or_(
        keys.c.expires_at.is_(None), keys.c.expires_at > oldest
    )
