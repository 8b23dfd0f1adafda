"""The labels of fields and filters, where a text names them outside of their form."""

from flask_babel import gettext

from .blueprint import blp
from .problem_texts import N_

LABELS = {
    "about": N_("Actor or target"),
    "action": N_("Action"),
    "actor_id": N_("Actor"),
    "avatar_url": N_("Picture"),
    "created_after": N_("Created from"),
    "created_before": N_("Created to"),
    "description": N_("Description"),
    "dry_run": N_("What"),
    "email": N_("E-mail"),
    "first_name": N_("First name"),
    "ip_address": N_("Address"),
    "keys": N_("With a key that"),
    "last_login_after": N_("Logged in from"),
    "last_login_before": N_("Logged in to"),
    "last_name": N_("Last name"),
    "locale": N_("Language"),
    "locked": N_("Locked"),
    "metadata": N_("Metadata"),
    "mfa_enabled": N_("Second factor"),
    "name": N_("Name"),
    "outcome": N_("Outcome"),
    "parents": N_("Inherits from"),
    "password": N_("Password"),
    "permissions": N_("Permissions"),
    "phone": N_("Telephone"),
    "role": N_("Role"),
    "roles": N_("Roles"),
    "search": N_("Search"),
    "session_id": N_("Session"),
    "since": N_("From day"),
    "state": N_("State"),
    "status": N_("Status"),
    "target_id": N_("Target"),
    "timezone": N_("Time zone"),
    "until": N_("To day"),
    "username": N_("User name"),
}


@blp.app_template_filter("field_label")
def field_label(name: str) -> str:
    """Return the label of a field in the language of the viewer; the name if it has none."""
    label = LABELS.get(name)
    return str(gettext(label)) if label else name.replace("_", " ")
