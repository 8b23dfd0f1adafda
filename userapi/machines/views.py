"""Service accounts and API keys as they are shown, each read with one query."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select
from sqlalchemy.orm import Session

from userapi.infrastructure.database import table_of
from userapi.machines.active_keys import is_active_key, keys
from userapi.machines.models import KeyStatus, OwnerType, ServiceAccount
from userapi.roles.models import ServiceAccountRole
from userapi.sessions.status import json_names

accounts = table_of(ServiceAccount)
account_roles = table_of(ServiceAccountRole)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFacts:
    """The fields of an owner of keys that events contain."""

    owner_type: OwnerType
    id: UUID
    name: str
    status: str
    roles: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountView:
    """A service account as the service shows it."""

    id: UUID
    client_id: UUID
    name: str
    description: str
    status: str
    status_reason: str | None
    roles: list[str]
    metadata: dict[str, Any]
    key_count: int
    last_used_at: datetime | None
    created_at: datetime
    updated_at: datetime
    created_by: UUID | None
    _version: int

    @property
    def etag(self) -> str:
        """Return the entity tag of this version, without quotes."""
        return str(self._version)

    @property
    def facts(self) -> AccountFacts:
        """Return the fields that events contain."""
        return AccountFacts(
            owner_type=OwnerType.SERVICE,
            id=self.id,
            name=self.name,
            status=self.status,
            roles=self.roles,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyView:
    """An API key as the service shows it: never its secret."""

    id: UUID
    name: str
    hint: str
    owner_type: OwnerType
    owner_id: UUID
    permissions: list[str] | None
    allowed_networks: list[str] | None
    status: KeyStatus
    created_at: datetime
    created_by: UUID | None
    expires_at: datetime | None
    last_used_at: datetime | None
    last_used_ip: str | None
    revoked_at: datetime | None
    revoked_reason: str | None
    rotated_from: UUID | None
    replaced_by: UUID | None

    @property
    def audit_details(self) -> dict[str, Any]:
        """Return what every audit row about the key contains: its owner and its name."""
        return {
            "owner_type": str(self.owner_type),
            "owner_id": str(self.owner_id),
            "name": self.name,
        }


def role_names_of_account(account_id: ColumnElement[UUID]) -> ColumnElement[list[str]]:
    """Return a scalar subquery for the names of an account's roles as a list, unordered."""
    return (
        select(json_names(account_roles.c.role_name))
        .where(account_roles.c.service_account_id == account_id)
        .scalar_subquery()
        .label("roles")
    )


def all_accounts(now: datetime) -> Select[Any]:
    """Return the query for the columns of `AccountView`."""
    active = (
        select(func.count())
        .where(keys.c.service_account_id == accounts.c.id, is_active_key(now))
        .scalar_subquery()
    )
    return select(accounts, role_names_of_account(accounts.c.id), active.label("key_count"))


def account_view(row: Row[Any]) -> AccountView:
    """Return the account of a row of `all_accounts`."""
    return AccountView(
        id=row.id,
        client_id=row.id,
        name=row.name,
        description=row.description,
        status=row.status,
        status_reason=row.status_reason,
        roles=sorted(row.roles or ()),
        metadata=row.attributes,
        key_count=row.key_count,
        last_used_at=row.last_used_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        created_by=row.created_by,
        _version=row.version,
    )


def find_account(
    connection: Connection | Session, account_id: UUID, now: datetime
) -> AccountView | None:
    """Return the account with this id, as `connection` reads it."""
    query = all_accounts(now).where(accounts.c.id == account_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else account_view(row)


def key_view(row: Any, now: datetime) -> KeyView:
    """Return the key of a row of `keys`, or of an `ApiKey`."""
    is_service = row.user_id is None
    return KeyView(
        id=row.id,
        name=row.name,
        hint=row.hint,
        owner_type=OwnerType.SERVICE if is_service else OwnerType.USER,
        owner_id=row.service_account_id if is_service else row.user_id,
        permissions=row.permissions,
        allowed_networks=row.allowed_networks,
        status=status_of(row, now),
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        last_used_ip=row.last_used_ip,
        revoked_at=row.revoked_at,
        revoked_reason=row.revoked_reason,
        rotated_from=row.rotated_from,
        replaced_by=row.replaced_by,
    )


def status_of(key: Any, now: datetime) -> KeyStatus:
    """Return the state of a key at a time."""
    if key.revoked_at is not None:
        return KeyStatus.REVOKED
    if key.expires_at is not None and key.expires_at <= now:
        return KeyStatus.EXPIRED
    return KeyStatus.ACTIVE
