"""Whether an API key or a client token is accepted: read by every request that presents one.

`DatabaseLiveKeys` reads the database each time, `RedisLiveKeys` (`copies`) mostly Redis. Both
reject in the same order: unknown or wrong, then revoked or its owner not active, then expired.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Select, and_, bindparam, literal, select

from userapi.accounts.models import UserStatus
from userapi.accounts.views import users
from userapi.authentication.refusals import TokenExpired, TokenInvalid, TokenRevoked
from userapi.authentication.token_claims import AccessClaims
from userapi.clock import Clock
from userapi.infrastructure.database import reading, table_of
from userapi.infrastructure.rate_counters import Condition
from userapi.infrastructure.redis_commands import Command
from userapi.machines.active_keys import keys
from userapi.machines.key_text import ParsedKey
from userapi.machines.models import AccountStatus, ClientToken, OwnerType
from userapi.machines.views import accounts, role_names_of_account
from userapi.permissions import PermissionSet
from userapi.roles.graph import RoleGraph, catalogue_version
from userapi.sessions.status import role_names_column

_tokens = table_of(ClientToken)


class OwnerNotActive(TokenRevoked):
    """The key is genuine and not revoked, but its owner is suspended or not active yet.

    `expires_at` is the end of the key; None: never.
    """

    def __init__(self, owner_id: UUID, *, expires_at: datetime | None) -> None:
        super().__init__()
        self.owner_id = owner_id
        self.expires_at = expires_at


class PersonalKeyDisabled(TokenRevoked):
    """The key is genuine and not revoked, but the operator has disabled API keys of users."""


@dataclass(frozen=True, slots=True)
class KeyReference:
    """A key or a client token as a request presents it. Either `key` or `claims` is set."""

    key_id: UUID
    owner_type: OwnerType
    key: ParsedKey | None = None
    claims: AccessClaims | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKey:
    """What a request reads about its key or client token, and about the owner of the key.

    `permissions` is the list of the key and `scope` that of the token; None does not limit.
    """

    key_id: UUID
    owner_type: OwnerType
    owner_id: UUID
    owner_name: str
    roles: tuple[str, ...]
    permissions: tuple[str, ...] | None
    scope: tuple[str, ...] | None
    allowed_networks: tuple[str, ...] | None
    must_change_password: bool
    created_at: datetime
    expires_at: datetime | None
    token_version: int
    """The version that client tokens of the owner must have; 0 for users."""
    key_version: int
    access_version: int
    catalogue_version: int

    def effective(self, graph: RoleGraph) -> PermissionSet:
        """Return what the owner holds now and both the key and the token allow."""
        held = graph.effective(self.roles)
        for limit in (self.permissions, self.scope):
            if limit is not None:
                held &= PermissionSet(limit)
        return held


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLookup:
    """A command whose reply `find` accepts, and what Redis holds after it for a live key."""

    owner_id: UUID
    command: Command
    condition: Condition


class LiveKeys(Protocol):
    """Finds live keys and tokens. Callers report each change of a key or an account."""

    def lookup(self, reference: KeyReference) -> KeyLookup | None:
        """Return how to look the key up in Redis; None if Redis is not used or not trusted."""
        ...

    def lookup_for(self, owner_id: UUID, reference: KeyReference) -> KeyLookup | None:
        """Return how to look the key up if it is known to be of this owner.

        It never reads the database.
        """
        ...

    def find(self, reference: KeyReference, *, reply: object = None) -> LiveKey:
        """Return the live key. Raises TokenInvalid, TokenRevoked, TokenExpired.

        `reply` is the reply of Redis to the lookup.
        """
        ...

    def keys_revoked(self, owner_id: UUID, digests: Sequence[str]) -> None:
        """Report, after the commit, that keys of an owner were revoked permanently."""
        ...

    def key_changed(self, owner_id: UUID, digest: str, *, version: int) -> None:
        """Report, after the commit, that a key has a new version."""
        ...

    def account_changed(self, account_id: UUID, *, access_version: int) -> None:
        """Report, after the commit, that an account, its keys or its tokens have changed."""
        ...


_COLUMNS = (
    keys.c.id.label("key_id"),
    keys.c.key_hash,
    keys.c.permissions,
    keys.c.allowed_networks,
    keys.c.created_at,
    keys.c.expires_at,
    keys.c.revoked_at,
    keys.c.version.label("key_version"),
    catalogue_version().label("catalogue_version"),
)
_OF_USER: Select[Any] = (
    select(
        *_COLUMNS,
        users.c.id.label("owner_id"),
        users.c.username.label("owner_name"),
        (users.c.status == UserStatus.ACTIVE).label("owner_is_active"),
        users.c.access_version,
        literal(0).label("token_version"),
        users.c.must_change_password,
        role_names_column(users.c.id),
    )
    .select_from(keys.join(users, users.c.id == keys.c.user_id))
    .where(keys.c.id == bindparam("key_id"))
)
_SERVICE_COLUMNS = (
    *_COLUMNS,
    accounts.c.id.label("owner_id"),
    accounts.c.name.label("owner_name"),
    (accounts.c.status == AccountStatus.ACTIVE).label("owner_is_active"),
    accounts.c.access_version,
    accounts.c.token_version,
    literal(False).label("must_change_password"),
    role_names_of_account(accounts.c.id),
)
_KEYS_OF_SERVICES = keys.join(accounts, accounts.c.id == keys.c.service_account_id)
_OF_SERVICE: Select[Any] = (
    select(*_SERVICE_COLUMNS).select_from(_KEYS_OF_SERVICES).where(keys.c.id == bindparam("key_id"))
)
_OF_TOKEN: Select[Any] = (
    select(
        *_SERVICE_COLUMNS,
        _tokens.c.revoked_at.label("token_revoked_at"),
        _tokens.c.scope.label("token_scope"),
    )
    .select_from(
        _KEYS_OF_SERVICES.outerjoin(
            _tokens, and_(_tokens.c.jti == bindparam("jti"), _tokens.c.key_id == keys.c.id)
        )
    )
    .where(keys.c.id == bindparam("key_id"))
)


class DatabaseLiveKeys:
    """Reads the database each time: one query per request."""

    def __init__(self, clock: Clock, *, personal_keys: bool) -> None:
        """`personal_keys` is whether keys of users are accepted at all."""
        self._clock = clock
        self.personal_keys = personal_keys

    def lookup(self, reference: KeyReference) -> KeyLookup | None:
        """Return None: Redis is not used."""
        return None

    def lookup_for(self, owner_id: UUID, reference: KeyReference) -> KeyLookup | None:
        """Return None: Redis is not used."""
        return None

    def find(self, reference: KeyReference, *, reply: object = None) -> LiveKey:
        """Return the live key. Raises TokenInvalid, TokenRevoked, TokenExpired."""
        if reference.claims is not None:
            return self._find_token(reference, reference.claims)
        query = _OF_SERVICE if reference.owner_type is OwnerType.SERVICE else _OF_USER
        with reading() as connection:
            row = connection.execute(query, {"key_id": reference.key_id}).one_or_none()
        digest = reference.key.digest if reference.key is not None else ""
        if row is None or not hmac.compare_digest(row.key_hash, digest):
            raise TokenInvalid()
        return self._require_live(row, reference, scope=None)

    def _find_token(self, reference: KeyReference, claims: AccessClaims) -> LiveKey:
        parameters = {"key_id": reference.key_id, "jti": UUID(claims.jti)}
        with reading() as connection:
            row = connection.execute(_OF_TOKEN, parameters).one_or_none()
        if row is None or row.token_revoked_at is not None:
            raise TokenRevoked()
        if row.owner_id != claims.user_id or row.token_version != claims.session_version:
            raise TokenRevoked()
        client = claims.client
        if client is None:
            raise TokenInvalid()
        scope = row.token_scope or client.scope
        if client.scope_requested and scope is None:
            raise TokenInvalid()  # The scope was too long for the token, and its row is gone.
        return self._require_live(row, reference, scope=scope)

    def _require_live(
        self, row: Any, reference: KeyReference, *, scope: Sequence[str] | None
    ) -> LiveKey:
        if row.revoked_at is not None:
            raise TokenRevoked()
        if not row.owner_is_active:
            raise OwnerNotActive(row.owner_id, expires_at=row.expires_at)
        if reference.owner_type is OwnerType.USER and not self.personal_keys:
            raise PersonalKeyDisabled()
        if row.expires_at is not None and row.expires_at <= self._clock.now():
            raise TokenExpired()
        return LiveKey(
            key_id=row.key_id,
            owner_type=reference.owner_type,
            owner_id=row.owner_id,
            owner_name=row.owner_name,
            roles=tuple(sorted(row.roles or ())),
            permissions=_tuple(row.permissions),
            scope=_tuple(scope),
            allowed_networks=_tuple(row.allowed_networks),
            must_change_password=row.must_change_password,
            created_at=row.created_at,
            expires_at=row.expires_at,
            token_version=row.token_version,
            key_version=row.key_version,
            access_version=row.access_version,
            catalogue_version=row.catalogue_version,
        )

    def keys_revoked(self, owner_id: UUID, digests: Sequence[str]) -> None:
        """Do nothing: the next lookup reads the rows."""

    def key_changed(self, owner_id: UUID, digest: str, *, version: int) -> None:
        """Do nothing: the next lookup reads the row."""

    def account_changed(self, account_id: UUID, *, access_version: int) -> None:
        """Do nothing: the next lookup reads the row."""


def _tuple(items: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if items is None else tuple(items)
