"""Bulk changes: one action on many users, each in its own transaction and with its own result."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog
from psycopg2 import errors as pg_errors
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from userapi.accounts.bulk_actions import PERMISSIONS, WITH_A_ROLE, BulkAction
from userapi.accounts.deletion import AccountDeletion
from userapi.accounts.role_assignment import RoleAssignment
from userapi.accounts.suspension import AccountSuspension
from userapi.actor import Actor
from userapi.audit.actions import AuditAction, Outcome
from userapi.audit.service import AuditTrail
from userapi.errors import Forbidden, Invalid, ServiceError, Unavailable, invalid_field
from userapi.roles.service import Roles

MAX_USERS = 1000
# At most so many ids of refused users are in the audit row; it always has their number.
MAX_RECORDED = 20

log = structlog.get_logger(__name__)


# Errors that concern one locked row only; the next user is processed.
_ERRORS_OF_ONE_ROW = (
    pg_errors.DeadlockDetected,
    pg_errors.LockNotAvailable,
    pg_errors.QueryCanceled,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkResult:
    """The result for one user. `code` is the error; `forbidden` means that the actor may not."""

    id: UUID
    code: str | None = None
    forbidden: bool = False

    @property
    def status(self) -> str:
        """Return "ok" or "error"."""
        return "ok" if self.code is None else "error"


class BulkChanges:
    """Applies one action to many users."""

    def __init__(
        self,
        *,
        audit: AuditTrail,
        deletion: AccountDeletion,
        role_assignment: RoleAssignment,
        roles: Roles,
        suspension: AccountSuspension,
    ) -> None:
        self._audit = audit
        self._deletion = deletion
        self._role_assignment = role_assignment
        self._roles = roles
        self._suspension = suspension

    def run(
        self,
        action: BulkAction,
        user_ids: Sequence[UUID],
        *,
        actor: Actor,
        reason: str | None = None,
        role: str | None = None,
    ) -> list[BulkResult]:
        """Return one result for each user, in order; a repeated id is processed once.

        Raises PermissionDenied without the permission of the action, and Invalid for a role that is
        missing, unknown or does not fit the action. Any other error is the result of its user.
        """
        actor.require(PERMISSIONS[action])
        self.require_fitting_role(action, role)
        results: list[BulkResult] = []
        outage = False
        for user_id in dict.fromkeys(user_ids):
            if outage:
                # Earlier users are changed, so the caller needs the results instead of a 503.
                results.append(BulkResult(id=user_id, code=Unavailable.code))
                continue
            try:
                result = self._run_one(action, user_id, actor, reason, role)
            except (OperationalError, PoolTimeout) as exc:
                log.warning("bulk.interrupted", action=str(action), error=type(exc).__name__)
                outage = not isinstance(getattr(exc, "orig", None), _ERRORS_OF_ONE_ROW)
                result = BulkResult(id=user_id, code=Unavailable.code)
            results.append(result)
        return self._with_refusals_recorded(results, action, actor)

    def _run_one(
        self, action: BulkAction, user_id: UUID, actor: Actor, reason: str | None, role: str | None
    ) -> BulkResult:
        try:
            self._change(action, user_id, actor, reason, role or "")
        except Forbidden as exc:
            return BulkResult(id=user_id, code=exc.code, forbidden=True)
        except Invalid as exc:
            return BulkResult(id=user_id, code=exc.errors[0].code if exc.errors else exc.code)
        except ServiceError as exc:
            return BulkResult(id=user_id, code=exc.code)
        return BulkResult(id=user_id)

    def _change(
        self, action: BulkAction, user_id: UUID, actor: Actor, reason: str | None, role: str
    ) -> None:
        match action:
            case BulkAction.SUSPEND:
                self._suspension.suspend(user_id, actor=actor, reason=reason)
            case BulkAction.ACTIVATE:
                self._suspension.activate(user_id, actor=actor, reason=reason)
            case BulkAction.UNLOCK:
                self._suspension.unlock(user_id, actor=actor, reason=reason)
            case BulkAction.DELETE:
                self._deletion.delete(user_id, actor=actor, reason=reason)
            case BulkAction.ASSIGN_ROLE:
                self._role_assignment.add_role(user_id, role, actor=actor, reason=reason)
            case BulkAction.REMOVE_ROLE:
                self._role_assignment.remove_role(user_id, role, actor=actor, reason=reason)

    def _with_refusals_recorded(
        self, results: list[BulkResult], action: BulkAction, actor: Actor
    ) -> list[BulkResult]:
        """Record everything that the actor may not do as one audit row.

        If the row cannot be written, these users get `service_unavailable` as their result: no
        permission is refused without a record.
        """
        refused = [result for result in results if result.forbidden]
        if not refused:
            return results
        codes = Counter(str(result.code) for result in refused)
        try:
            self._audit.record_alone(
                AuditAction.AUTH_PERMISSION_DENIED,
                actor=actor,
                target=("user", refused[0].id) if len(refused) == 1 else None,
                outcome=Outcome.DENIED,
                details={
                    "code": codes.most_common(1)[0][0],
                    "codes": dict(sorted(codes.items())),
                    "action": str(action),
                    "refused": len(refused),
                    "user_ids": [result.id for result in refused[:MAX_RECORDED]],
                },
            )
        except (OperationalError, PoolTimeout) as exc:
            log.warning("bulk.interrupted", action=str(action), error=type(exc).__name__)
            return [
                BulkResult(id=result.id, code=Unavailable.code) if result.forbidden else result
                for result in results
            ]
        return results

    def require_fitting_role(self, action: BulkAction, role: str | None) -> None:
        """Raise Invalid for a role that is missing, unknown, or does not fit the action."""
        if action not in WITH_A_ROLE:
            if role is not None:
                raise invalid_field(
                    "role", f"Not allowed for the action {action}.", "not_for_this_action"
                )
        elif role is None:
            raise invalid_field("role", f"Required for the action {action}.", "required")
        elif role not in self._roles.graph().names:
            raise invalid_field("role", "This role does not exist.", "unknown_role")
