"""The result of an imported row in words."""

from flask_babel import gettext

from .blueprint import blp
from .problem_texts import N_

RESULTS = {
    "created": N_("created"),
    "skipped": N_("exists already"),
    "email_taken": N_("The e-mail address is in use."),
    "internal_error": N_("An error occurred in the service."),
    "permission_denied": N_("You do not hold the permission for these roles."),
    "permission_escalation": N_("The roles grant permissions that you do not hold."),
    "service_unavailable": N_("The database was unavailable."),
    "username_taken": N_("The user name is taken."),
}


@blp.app_template_filter("import_result")
def import_result(code: str) -> str:
    """Return the status of a row, or the code of its error, in the viewer's language."""
    return str(gettext(RESULTS[code])) if code in RESULTS else code.replace("_", " ")
