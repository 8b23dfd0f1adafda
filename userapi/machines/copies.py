"""Live keys and client tokens with copies in Redis that cannot outlive a change.

The copies follow the protocol of those of sessions (`userapi.sessions.copy_store`). The copy of a
key has the SHA-256 of the whole key in its name, so a wrong secret finds none.
"""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
import structlog
from cachetools import LRUCache
from sqlalchemy import func, select

from userapi.clock import Clock
from userapi.infrastructure.bounded_dict import BoundedDict
from userapi.infrastructure.database import reading
from userapi.machines.active_keys import keys
from userapi.machines.models import OwnerType
from userapi.machines.status import DatabaseLiveKeys, KeyLookup, KeyReference, LiveKey
from userapi.sessions.copy_store import CopyStore, Place, Versions, liveness

log = structlog.get_logger(__name__)

MAX_CACHED_COPIES = 4096
MAX_KNOWN_OWNERS = 10_000
MAX_KNOWN_PLACES = 4096


class RedisLiveKeys:
    """Reads Redis first, and the database on a miss or while Redis is unavailable."""

    def __init__(self, clock: Clock, *, copies: CopyStore, database: DatabaseLiveKeys) -> None:
        self._clock = clock
        self._copies = copies
        self._database = database
        # The owner of a key never changes, so this is never outdated.
        self._owners: LRUCache[UUID, UUID] = LRUCache(MAX_KNOWN_OWNERS)
        self._lock = threading.Lock()
        self._places: BoundedDict[str, Place] = BoundedDict(MAX_KNOWN_PLACES)

    def lookup(self, reference: KeyReference) -> KeyLookup | None:
        """Return how to look the key up; None if Redis is not trusted, or can hold no copy."""
        place = self._place(reference)
        if place is None:
            return None
        command = self._copies.lookup(place, version=_version_of(reference))
        if command is None:
            return None
        return KeyLookup(owner_id=place.owner_id, command=command, condition=liveness(place))

    def lookup_for(self, owner_id: UUID, reference: KeyReference) -> KeyLookup | None:
        """Return how to look the key up if this process knows that it is of this owner."""
        with self._lock:
            known = self._owners.get(reference.key_id)
        return self.lookup(reference) if known == owner_id else None

    def _place(self, reference: KeyReference) -> Place | None:
        """Return where the copy is; None if there can be none."""
        if reference.claims is not None:
            return Place("t", UUID(reference.claims.jti).hex, reference.claims.user_id)
        if reference.owner_type is OwnerType.USER and not self._database.personal_keys:
            return None  # A process with other settings may have stored a copy.
        if reference.key is None:
            return None
        digest = reference.key.digest
        place = self._places.get(digest)
        if place is None and (owner_id := self._owner_of(reference.key_id)) is not None:
            place = self._places[digest] = Place("k", digest, owner_id)
        return place

    def find(self, reference: KeyReference, *, reply: object = None) -> LiveKey:
        """Return the live key. Raises TokenInvalid, TokenRevoked, TokenExpired.

        A tombstone does not contain the reason, so the database decides; it is authoritative in any
        case.
        """
        place = self._place(reference)
        if place is None:
            return self._database.find(reference)
        reply = self._copies.read(place, version=_version_of(reference), reply=reply)
        if isinstance(reply, bytes) and reply.startswith(b"D"):
            live = _decoded(reply)
            if live is not None and self._is_of(live, reference):
                return live
        found = self._database.find(reference)
        versions = Versions(
            _version(found, reference), found.access_version, found.catalogue_version
        )
        self._copies.fill(place, reply, versions, _encoded(found))
        return found

    def keys_revoked(self, owner_id: UUID, digests: Sequence[str]) -> None:
        """Invalidate the copies of keys permanently: many in one round trip."""
        self._copies.ended([Place("k", digest, owner_id) for digest in digests])

    def key_changed(self, owner_id: UUID, digest: str, *, version: int) -> None:
        """Invalidate the copy of an earlier version of a key."""
        self._copies.changed(Place("k", digest, owner_id), version=version)

    def account_changed(self, account_id: UUID, *, access_version: int) -> None:
        """Invalidate the copies of an account's keys and tokens."""
        self._copies.owner_changed(account_id, version=access_version)

    def _is_of(self, live: LiveKey, reference: KeyReference) -> bool:
        """Return whether a copy is that of the reference and has not expired since."""
        if live.key_id != reference.key_id or live.owner_type is not reference.owner_type:
            return False
        return live.expires_at is None or live.expires_at > self._clock.now()

    def _owner_of(self, key_id: UUID) -> UUID | None:
        with self._lock:
            known = self._owners.get(key_id)
        if known is not None:
            return known
        query = select(func.coalesce(keys.c.user_id, keys.c.service_account_id)).where(
            keys.c.id == key_id
        )
        with reading() as connection:
            owner_id: UUID | None = connection.execute(query).scalar_one_or_none()
        if owner_id is not None:
            with self._lock:
                self._owners[key_id] = owner_id
        return owner_id


def _version_of(reference: KeyReference) -> int:
    """Return the version that a copy must have at least: that of a token is in the token."""
    return 0 if reference.claims is None else reference.claims.session_version


def _version(live: LiveKey, reference: KeyReference) -> int:
    return live.key_version if reference.claims is None else reference.claims.session_version


def _encoded(live: LiveKey) -> bytes:
    return orjson.dumps(
        [
            live.key_id.hex,
            live.owner_type,
            live.owner_id.hex,
            live.owner_name,
            live.roles,
            live.permissions,
            live.scope,
            live.allowed_networks,
            live.must_change_password,
            live.token_version,
            live.created_at.timestamp(),
            None if live.expires_at is None else live.expires_at.timestamp(),
        ]
    )


@lru_cache(maxsize=MAX_CACHED_COPIES)
def _decoded(copy: bytes) -> LiveKey | None:
    """Return the key of a copy. None, a miss, for the form of another release."""
    try:
        return _parsed(copy)
    except (AttributeError, TypeError, ValueError):
        log.warning("keys.copy_unreadable")
        return None


def _parsed(copy: bytes) -> LiveKey:
    key_version, access_version, catalogue_version, _, text = copy[1:].split(b" ", 4)
    fields: list[Any] = orjson.loads(text)
    key_id, owner_type, owner_id, owner_name, roles, permissions, scope, networks, *rest = fields
    must_change_password, token_version, created_at, expires_at = rest
    return LiveKey(
        key_id=UUID(key_id),
        owner_type=OwnerType(owner_type),
        owner_id=UUID(owner_id),
        owner_name=owner_name,
        roles=tuple(roles),
        permissions=None if permissions is None else tuple(permissions),
        scope=None if scope is None else tuple(scope),
        allowed_networks=None if networks is None else tuple(networks),
        must_change_password=must_change_password,
        token_version=token_version,
        created_at=datetime.fromtimestamp(created_at, UTC),
        expires_at=None if expires_at is None else datetime.fromtimestamp(expires_at, UTC),
        key_version=int(key_version),
        access_version=int(access_version),
        catalogue_version=int(catalogue_version),
    )
