"""Writing and reading the audit trail."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, Table, and_, insert, or_, select

from userapi.actor import Actor
from userapi.audit.actions import AuditAction, Outcome
from userapi.audit.models import AuditLog
from userapi.clock import Clock, rfc3339
from userapi.database import new_id, reading, require_transaction, transaction
from userapi.paging import Page, PageRequest, Paginator, SortKey
from userapi.settings import Settings

MASK = "***"
SECRET_FIELDS = frozenset({"password", "password_hash", "token", "token_hash", "secret", "api_key"})
USER_AGENT_LENGTH = 512

_table: Table = AuditLog.__table__  # type: ignore[assignment]

Changes = Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which rows are wanted; what is None does not filter."""

    actor_id: UUID | None = None
    target_id: str | None = None
    action: AuditAction | None = None
    outcome: Outcome | None = None
    ip_address: str | None = None
    correlation_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class AuditTrail:
    """The record of who did what. Rows are only ever added."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def record(
        self,
        action: AuditAction,
        *,
        actor: Actor,
        target: tuple[str, object] | None = None,
        outcome: Outcome = Outcome.SUCCESS,
        changes: Changes | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a row to the open transaction. `target` is a type and an id."""
        require_transaction().execute(
            insert(_table).values(
                id=new_id(),
                occurred_at=self._clock.now(),
                action=action,
                outcome=outcome,
                actor_id=actor.id,
                actor_username=actor.username,
                actor_type=actor.type,
                session_id=actor.session_id,
                target_type=target[0] if target else None,
                target_id=str(target[1]) if target else None,
                ip_address=actor.ip_address,
                user_agent=(actor.user_agent or "")[:USER_AGENT_LENGTH] or None,
                correlation_id=actor.correlation_id,
                changes=_masked(changes) if changes else None,
                details=dict(details) if details else None,
            )
        )

    def record_all(
        self,
        action: AuditAction,
        *,
        actor: Actor,
        about: Mapping[tuple[str, object], Mapping[str, Any] | None],
    ) -> None:
        """Add a row for each target, with its details, to the open transaction by one statement."""
        if not about:
            return
        now = self._clock.now()
        require_transaction().execute(
            insert(_table),
            [
                {
                    "id": new_id(),
                    "occurred_at": now,
                    "action": action,
                    "outcome": Outcome.SUCCESS,
                    "actor_id": actor.id,
                    "actor_username": actor.username,
                    "actor_type": actor.type,
                    "session_id": actor.session_id,
                    "target_type": target_type,
                    "target_id": str(target_id),
                    "ip_address": actor.ip_address,
                    "user_agent": (actor.user_agent or "")[:USER_AGENT_LENGTH] or None,
                    "correlation_id": actor.correlation_id,
                    "changes": None,
                    "details": dict(details) if details else None,
                }
                for (target_type, target_id), details in about.items()
            ],
        )

    def record_alone(
        self,
        action: AuditAction,
        *,
        actor: Actor,
        target: tuple[str, object] | None = None,
        outcome: Outcome = Outcome.SUCCESS,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a row in a transaction of its own: nothing else changed."""
        with transaction():
            self.record(action, actor=actor, target=target, outcome=outcome, details=details)


def matching(wanted: AuditFilter) -> Select[Any]:
    """Return the query for the rows that `wanted` describes, without an order."""
    query: Select[Any] = select(_table)
    for column, value in (
        (_table.c.actor_id, wanted.actor_id),
        (_table.c.target_id, wanted.target_id),
        (_table.c.action, wanted.action),
        (_table.c.outcome, wanted.outcome),
        (_table.c.ip_address, wanted.ip_address),
        (_table.c.correlation_id, wanted.correlation_id),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.since is not None:
        query = query.where(_table.c.occurred_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(_table.c.occurred_at < wanted.until)
    return query


def about_user(user_id: UUID) -> Select[Any]:
    """Return the query for what a user did and what was done to them."""
    return select(_table).where(
        or_(
            _table.c.actor_id == user_id,
            and_(_table.c.target_type == "user", _table.c.target_id == str(user_id)),
        )
    )


def _masked(changes: Changes) -> dict[str, list[Any]]:
    return {
        field: [MASK, MASK] if field in SECRET_FIELDS else [_plain(old), _plain(new)]
        for field, (old, new) in changes.items()
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it."""
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


class AuditReader:
    """Reads the trail; that it was read is recorded, too."""

    def __init__(self, *, settings: Settings, trail: AuditTrail) -> None:
        self._trail = trail
        self._paginator = Paginator(
            secret=settings.secret_key,
            name="audit",
            keys={"occurred_at": SortKey(_table.c.occurred_at)},
            default_sort="-occurred_at",
            tie_breaker=_table.c.id,
        )

    def page(self, wanted: AuditFilter, page: PageRequest, *, actor: Actor) -> Page[Row[Any]]:
        """Return the wanted part, newest first. Raises as `Paginator.page` does."""
        filters = asdict(wanted)
        with reading() as connection:
            found = self._paginator.page(
                connection, matching(wanted), page, filters=filters, item=lambda row: row
            )
        self._trail.record_alone(
            AuditAction.AUDIT_READ,
            actor=actor,
            details={name: str(value) for name, value in filters.items() if value is not None},
        )
        return found
