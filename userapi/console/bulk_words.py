"""Bulk changes in words: what an action is called, and its result for a user."""

from userapi.accounts.bulk_actions import BulkAction

from .blueprint import blp

LABELS = {
    BulkAction.SUSPEND: "Suspend",
    BulkAction.ACTIVATE: "Activate",
    BulkAction.UNLOCK: "Unlock",
    BulkAction.ASSIGN_ROLE: "Assign a role",
    BulkAction.REMOVE_ROLE: "Remove a role",
    BulkAction.DELETE: "Delete",
}
# What the action ends or begins for each user, for the page that asks.
CONSEQUENCES = {
    BulkAction.SUSPEND: "They cannot sign in until they are activated. Their sessions end now.",
    BulkAction.ACTIVATE: "They can sign in again.",
    BulkAction.UNLOCK: "Their failed log-ins are forgiven, and they can sign in at once.",
    BulkAction.ASSIGN_ROLE: "They get the permissions of the role with their next request.",
    BulkAction.REMOVE_ROLE: "They lose the permissions of the role with their next request.",
    BulkAction.DELETE: "Their accounts and sessions are deleted permanently. The audit log stays.",
}
DONE = {
    BulkAction.SUSPEND: "was suspended",
    BulkAction.ACTIVATE: "was activated",
    BulkAction.UNLOCK: "was unlocked",
    BulkAction.ASSIGN_ROLE: "has the role {role}",
    BulkAction.REMOVE_ROLE: "does not have the role {role} any more",
    BulkAction.DELETE: "was deleted",
}
# Why a user was not changed. A pair of action and code comes before the code alone.
REFUSED = {
    (BulkAction.SUSPEND, "invalid_status_transition"): "was already suspended",
    (BulkAction.ACTIVATE, "invalid_status_transition"): "was already active",
    (BulkAction.SUSPEND, "self_action_refused"): "is your own account, which you cannot suspend",
    (BulkAction.DELETE, "self_action_refused"): "is your own account, which you cannot delete here",
}
REFUSED_BY_CODE = {
    "insufficient_rank": "has a rank that is not below yours",
    "internal_error": "was not changed because of an error of the service",
    "last_superadmin": "is the last active superadmin",
    "not_found": "does not exist any more",
    "permission_denied": "was not changed: this needs a permission that you do not hold",
    "permission_escalation": "was not changed: the role grants permissions that you do not hold",
    "service_unavailable": "was not changed, because the database was unavailable",
    "too_many_roles": "has as many roles as a user can have",
    "unknown_role": "was not changed: the role does not exist any more",
}


@blp.app_template_filter("bulk_result")
def bulk_result(code: str | None, action: BulkAction, role: str | None) -> str:
    """Return the result of a bulk change for one user, as the rest of a sentence."""
    if code is None:
        return DONE[action].format(role=role)
    words = REFUSED.get((action, code)) or REFUSED_BY_CODE.get(code)
    return words or f"was not changed: {code.replace('_', ' ')}"
