"""Bulk changes in words: what an action is called, and its result for a user."""

from flask_babel import gettext

from userapi.accounts.bulk_actions import BulkAction

from .blueprint import blp
from .problem_texts import N_

LABELS = {
    BulkAction.SUSPEND: N_("Suspend"),
    BulkAction.ACTIVATE: N_("Activate"),
    BulkAction.UNLOCK: N_("Unlock"),
    BulkAction.ASSIGN_ROLE: N_("Assign a role"),
    BulkAction.REMOVE_ROLE: N_("Remove a role"),
    BulkAction.DELETE: N_("Delete"),
}
# The effect of the action on each user, for the confirmation page.
CONSEQUENCES = {
    BulkAction.SUSPEND: N_("They cannot sign in until they are activated. Their sessions end now."),
    BulkAction.ACTIVATE: N_("They can sign in again."),
    BulkAction.UNLOCK: N_("Their failed log-ins are cleared, and they can sign in immediately."),
    BulkAction.ASSIGN_ROLE: N_("They get the permissions of the role with their next request."),
    BulkAction.REMOVE_ROLE: N_("They lose the permissions of the role with their next request."),
    BulkAction.DELETE: N_(
        "Their accounts and sessions are deleted permanently. The audit log stays."
    ),
}
DONE = {
    BulkAction.SUSPEND: N_("was suspended"),
    BulkAction.ACTIVATE: N_("was activated"),
    BulkAction.UNLOCK: N_("was unlocked"),
    BulkAction.ASSIGN_ROLE: N_("has the role %(role)s"),
    BulkAction.REMOVE_ROLE: N_("no longer has the role %(role)s"),
    BulkAction.DELETE: N_("was deleted"),
}
# Why a user was not changed. A pair of action and code comes before the code alone.
REFUSED = {
    (BulkAction.SUSPEND, "invalid_status_transition"): N_("was already suspended"),
    (BulkAction.ACTIVATE, "invalid_status_transition"): N_("was already active"),
    (BulkAction.SUSPEND, "self_action_refused"): N_(
        "is your own account, which you cannot suspend"
    ),
    (BulkAction.DELETE, "self_action_refused"): N_(
        "is your own account, which you cannot delete here"
    ),
}
REFUSED_BY_CODE = {
    "insufficient_rank": N_("has a rank that is not below yours"),
    "internal_error": N_("was not changed because of an error of the service"),
    "last_superadmin": N_("is the last active superadmin"),
    "not_found": N_("no longer exists"),
    "permission_denied": N_("was not changed: this needs a permission that you do not hold"),
    "permission_escalation": N_(
        "was not changed: the role grants permissions that you do not hold"
    ),
    "service_unavailable": N_("was not changed, because the database was unavailable"),
    "too_many_roles": N_("has as many roles as a user can have"),
    "unknown_role": N_("was not changed: the role no longer exists"),
}


@blp.app_template_filter("bulk_result")
def bulk_result(code: str | None, action: BulkAction, role: str | None) -> str:
    """Return the result of a bulk change for one user, as the rest of a sentence."""
    if code is None:
        return str(gettext(DONE[action], role=role))
    words = REFUSED.get((action, code)) or REFUSED_BY_CODE.get(code)
    if words is None:
        return str(gettext("was not changed: %(code)s", code=code.replace("_", " ")))
    return str(gettext(words))
