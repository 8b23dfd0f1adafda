"""Writing the audit trail, in the transaction of the change."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Insert, insert

from userapi.actor import Actor
from userapi.audit.actions import AuditAction, Outcome
from userapi.audit.masking import Changes, masked_changes, plain
from userapi.audit.models import AuditLog
from userapi.clock import Clock
from userapi.infrastructure.database import (
    autocommit,
    cte_parameters,
    insert_cte,
    new_id,
    require_transaction,
    table_of,
)

USER_AGENT_LENGTH = 512

_table = table_of(AuditLog)
_INSERT = insert(_table)


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
        row = self._row(
            action, actor=actor, target=target, outcome=outcome, changes=changes, details=details
        )
        require_transaction().connection().execute(_INSERT, row)

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
        require_transaction().execute(
            _INSERT,
            [
                self._row(action, actor=actor, target=target, details=details)
                for target, details in about.items()
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
        """Add a row in a separate transaction, because nothing else changed."""
        row = self._row(action, actor=actor, target=target, outcome=outcome, details=details)
        with autocommit() as connection:
            connection.execute(_INSERT, row)

    def parameters(
        self, action: AuditAction, *, actor: Actor, target: tuple[str, object]
    ) -> dict[str, Any]:
        """Return the parameters of a statement that contains `audit_cte`."""
        return cte_parameters(_table, self._row(action, actor=actor, target=target))

    def _row(
        self,
        action: AuditAction,
        *,
        actor: Actor,
        target: tuple[str, object] | None,
        outcome: Outcome = Outcome.SUCCESS,
        changes: Changes | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        return {
            "id": new_id(),
            "occurred_at": self._clock.now(),
            "action": action,
            "outcome": outcome,
            "actor_id": actor.id,
            "actor_username": actor.username,
            "actor_type": actor.type,
            "session_id": actor.session_id,
            "key_id": actor.key_id,
            "target_type": target[0] if target else None,
            "target_id": str(target[1]) if target else None,
            "ip_address": actor.ip_address,
            "user_agent": (actor.user_agent or "")[:USER_AGENT_LENGTH] or None,
            "correlation_id": actor.correlation_id,
            "changes": masked_changes(changes) if changes else None,
            "details": plain(details) if details else None,
        }


def audit_cte(source: FromClause, **columns: ColumnElement[Any]) -> Insert:
    """Return an INSERT of an audit row for each row of `source`, for use as a CTE.

    It sets the columns of the arguments to these expressions, and all others to the parameters
    that `AuditTrail.parameters` returns.
    """
    return insert_cte(_table, source, names=_table.c.keys(), **columns)
