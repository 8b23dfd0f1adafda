"""Audit rows as sentences for people. The code of the action is shown next to the sentence."""

from collections.abc import Mapping
from typing import Any

from flask_babel import gettext

from userapi.actor import ActorType
from userapi.audit.actions import AuditAction, Outcome

from .audit_targets import AuditRow, name_of_key
from .field_labels import LABELS, field_label
from .problem_texts import N_

# %(who)s did it and %(whom)s is the target. What comes after the colon is added from the details.
SENTENCES = {
    AuditAction.API_KEY_CREATED: N_("%(who)s created the API key %(whom)s"),
    AuditAction.API_KEY_REVOKED: N_("%(who)s revoked the API key %(whom)s"),
    AuditAction.API_KEY_ROTATED: N_("%(who)s replaced the API key %(whom)s"),
    AuditAction.API_KEY_UPDATED: N_("%(who)s changed the API key %(whom)s"),
    AuditAction.AUDIT_ANCHORED: N_("%(who)s copied the seal of the audit log to another place"),
    AuditAction.AUDIT_PRUNED: N_("%(who)s deleted old rows of the audit log"),
    AuditAction.AUDIT_READ: N_("%(who)s read the audit log"),
    AuditAction.AUTH_KEY_REFUSED: N_("The API key %(whom)s was refused"),
    AuditAction.AUTH_LOGIN: N_("%(who)s logged in"),
    AuditAction.AUTH_LOGIN_BLOCKED: N_("%(who)s was blocked after too many failed log-ins"),
    AuditAction.AUTH_LOGOUT: N_("%(who)s logged out"),
    AuditAction.AUTH_MFA_REQUIRED: N_(
        "%(who)s entered the correct password and was asked for a second factor"
    ),
    AuditAction.AUTH_PASSKEY_CLONE_SUSPECTED: N_("A passkey of %(whom)s may have been copied"),
    AuditAction.AUTH_PASSWORD_CHANGED: N_("%(who)s changed the password of %(whom)s"),
    AuditAction.AUTH_PASSWORD_RESET: N_(
        "%(who)s set a new password for %(whom)s with a link from a mail"
    ),
    AuditAction.AUTH_PASSWORD_RESET_REQUESTED: N_(
        "%(who)s requested a link to set a new password for %(whom)s"
    ),
    AuditAction.AUTH_PERMISSION_DENIED: N_("%(who)s lacked a permission"),
    AuditAction.AUTH_REFRESH: N_("%(who)s continued a session"),
    AuditAction.AUTH_REFRESH_REUSE_DETECTED: N_(
        "A refresh token of %(who)s was used twice, and the session ended"
    ),
    AuditAction.AUTH_STEP_UP: N_("%(who)s confirmed their identity again"),
    AuditAction.AUTH_TOKEN_ISSUED: N_("%(who)s got a client token"),
    AuditAction.AUTH_TOKEN_REVOKED: N_("%(who)s revoked a client token"),
    AuditAction.BULK_CANCELLED: N_("%(who)s cancelled a bulk change"),
    AuditAction.IMPORT_CANCELLED: N_("%(who)s cancelled an import"),
    AuditAction.KEY_REVOKED: N_("%(who)s revoked the signing key %(whom)s"),
    AuditAction.MFA_FACTOR_ADDED: N_("%(who)s added a second factor for %(whom)s"),
    AuditAction.MFA_FACTOR_REMOVED: N_("%(who)s removed a second factor of %(whom)s"),
    AuditAction.MFA_FACTOR_RENAMED: N_("%(who)s renamed a second factor of %(whom)s"),
    AuditAction.MFA_RECOVERY_CODES_CREATED: N_("%(who)s created recovery codes for %(whom)s"),
    AuditAction.MFA_RECOVERY_CODE_USED: N_("%(who)s used a recovery code of %(whom)s"),
    AuditAction.MFA_RESET: N_("%(who)s removed all second factors of %(whom)s"),
    AuditAction.ROLE_CREATED: N_("%(who)s created the role %(whom)s"),
    AuditAction.ROLE_DELETED: N_("%(who)s deleted the role %(whom)s"),
    AuditAction.ROLE_UPDATED: N_("%(who)s changed the role %(whom)s"),
    AuditAction.SERVICE_ACCOUNT_ACTIVATED: N_("%(who)s activated the service account %(whom)s"),
    AuditAction.SERVICE_ACCOUNT_CREATED: N_("%(who)s created the service account %(whom)s"),
    AuditAction.SERVICE_ACCOUNT_DELETED: N_("%(who)s deleted the service account %(whom)s"),
    AuditAction.SERVICE_ACCOUNT_ROLES_CHANGED: N_(
        "%(who)s changed the roles of the service account %(whom)s"
    ),
    AuditAction.SERVICE_ACCOUNT_SUSPENDED: N_("%(who)s suspended the service account %(whom)s"),
    AuditAction.SERVICE_ACCOUNT_UPDATED: N_("%(who)s changed the service account %(whom)s"),
    AuditAction.SESSION_REVOKED: N_("%(who)s ended a session of %(whom)s"),
    AuditAction.USER_ACTIVATED: N_("%(who)s activated %(whom)s"),
    AuditAction.USER_CREATED: N_("%(who)s created %(whom)s"),
    AuditAction.USER_DELETED: N_("%(who)s deleted %(whom)s"),
    AuditAction.USER_EMAIL_CHANGED: N_("%(who)s changed the e-mail address of %(whom)s"),
    AuditAction.USER_EMAIL_CHANGE_REQUESTED: N_(
        "%(who)s asked to change the e-mail address of %(whom)s"
    ),
    AuditAction.USER_EMAIL_VERIFIED: N_("%(who)s confirmed the e-mail address of %(whom)s"),
    AuditAction.USER_EXPORTED: N_("%(who)s downloaded data of %(whom)s"),
    AuditAction.USER_IMPORTED: N_("%(who)s imported %(whom)s"),
    AuditAction.USER_INVITED: N_("%(who)s invited %(whom)s"),
    AuditAction.USER_LOCKED: N_("%(whom)s was locked after too many failed log-ins"),
    AuditAction.USER_REGISTERED: N_("%(whom)s signed up"),
    AuditAction.USER_ROLES_CHANGED: N_("%(who)s changed the roles of %(whom)s"),
    AuditAction.USER_SUSPENDED: N_("%(who)s suspended %(whom)s"),
    AuditAction.USER_UNLOCKED: N_("%(who)s unlocked %(whom)s"),
    AuditAction.USER_UPDATED: N_("%(who)s changed the profile of %(whom)s"),
}
# The sentences of actions that did not succeed.
NOT_DONE = {
    (AuditAction.AUTH_LOGIN, Outcome.FAILURE): N_("A log-in as %(whom)s failed"),
    (AuditAction.AUTH_LOGIN, Outcome.DENIED): N_("%(whom)s was denied access"),
    (AuditAction.AUTH_STEP_UP, Outcome.FAILURE): N_("%(who)s could not confirm their identity"),
    (AuditAction.AUTH_LOGIN_BLOCKED, Outcome.DENIED): N_(
        "A log-in as %(whom)s was blocked after too many failed ones"
    ),
}
# Actions whose name already says that something was refused.
REFUSALS = {
    AuditAction.AUTH_KEY_REFUSED,
    AuditAction.AUTH_LOGIN_BLOCKED,
    AuditAction.AUTH_PASSKEY_CLONE_SUSPECTED,
    AuditAction.AUTH_PERMISSION_DENIED,
    AuditAction.AUTH_REFRESH_REUSE_DETECTED,
}
# Who acted, for rows without a name.
ACTORS = {
    ActorType.ANONYMOUS: N_("somebody"),
    ActorType.SERVICE: N_("a service"),
    ActorType.SYSTEM: N_("the system"),
    ActorType.USER: N_("a user"),
}
REASONS = {
    "account_deleted": N_("the account was deleted"),
    "account_suspended": N_("the account was suspended"),
    "account_pending": N_("the account is pending"),
    "account_not_active": N_("the account is not active"),
    "cap_reached": N_("there were too many sessions"),
    "factor_removed": N_("a second factor was removed"),
    "invalid_code": N_("wrong code"),
    "invalid_credentials": N_("wrong name or password"),
    "leaked": N_("it had leaked"),
    "logout": N_("log-out"),
    "mfa_enabled": N_("a second factor was added"),
    "mfa_reset": N_("all second factors were removed"),
    "network_not_allowed": N_("from a network that the key does not allow"),
    "passkey_invalid": N_("invalid passkey"),
    "passkey_unknown": N_("unknown passkey"),
    "password_changed": N_("the password was changed"),
    "password_reset": N_("the password was reset"),
    "refresh_reused": N_("a refresh token was used twice"),
    "reused_code": N_("the code was used before"),
    "revoked": N_("by request"),
    "rotated": N_("it was replaced"),
    "suspension undone": N_("suspension undone"),
    "token_expired": N_("it had expired"),
    "token_revoked": N_("it was revoked"),
    "too_many_attempts": N_("too many attempts"),
    "until_reached": N_("the suspension has expired"),
    "wrong_code": N_("wrong code"),
}

# In place of a name, where there is none.
UNNAMED = (
    N_("a deleted user"),
    N_("a deleted service account"),
    N_("an unknown account"),
    N_("their own account"),
    N_("users"),
)


def sentence(row: AuditRow, names: Mapping[str, str]) -> str:
    """Return what a row records, in the viewer's language.

    `names` are the names of targets and of their owners by id.
    """
    details = row.details or {}
    who = actor_in_words(row)
    whom = gettext("their own account") if row.target_id == str(row.actor_id) else _whom(row, names)
    not_done = NOT_DONE.get((row.action, row.outcome))
    template = not_done or SENTENCES.get(row.action)
    text = gettext(template, who=who, whom=whom) if template else f"{who}: {row.action}"
    if row.outcome != Outcome.SUCCESS and not not_done and row.action not in REFUSALS:
        text = gettext("%(sentence)s – without success", sentence=text)
    added = _addition(row, details)
    text = f"{text}: {added}" if added else text
    if row.actor_type != ActorType.ANONYMOUS:
        return text
    # The names of users stay as they are.
    words = who, *(str(gettext(unnamed)) for unnamed in UNNAMED)
    return text[0].upper() + text[1:] if text.startswith(words) else text


def actor_in_words(row: AuditRow) -> str:
    """Return the name of the actor; what kind of actor it was if there is none."""
    if row.actor_username:
        return str(row.actor_username)
    if row.actor_id:
        return str(gettext("a deleted user"))
    return str(gettext(ACTORS[ActorType(row.actor_type)]))


def _whom(row: AuditRow, names: Mapping[str, str]) -> str:
    details = row.details or {}
    if row.target_type == "user" and row.target_id:
        return names.get(row.target_id) or str(details.get("username") or gettext("a deleted user"))
    if row.target_type == "session":
        owner = str(details.get("user_id") or "")
        unnamed = gettext("a deleted user") if owner else gettext("their own account")
        return names.get(owner) or str(unnamed)
    if row.target_type == "service_account" and row.target_id:
        unnamed = details.get("name") or gettext("a deleted service account")
        return names.get(row.target_id) or str(unnamed)
    if row.target_type == "api_key" and row.target_id:
        return name_of_key(row, names)
    if row.target_id:
        return str(details.get("name") or row.target_id)
    is_export = row.action == AuditAction.USER_EXPORTED
    return str(gettext("users") if is_export else gettext("an unknown account"))


def _addition(row: AuditRow, details: Mapping[str, Any]) -> str:
    """Return what the details add: a reason, or what exactly was changed."""
    changes = row.changes or {}
    match row.action:
        case AuditAction.AUTH_PERMISSION_DENIED:
            return str(details.get("permission") or _plain(details.get("code", "")))
        case AuditAction.USER_ROLES_CHANGED | AuditAction.SERVICE_ACCOUNT_ROLES_CHANGED:
            return _roles(changes.get("roles") or ([], []))
        case AuditAction.USER_UPDATED | AuditAction.ROLE_UPDATED:
            return ", ".join(field_label(name) for name in sorted(changes))
        case AuditAction.USER_EMAIL_CHANGED:
            return " → ".join(map(str, changes.get("email") or ()))
        case AuditAction.MFA_FACTOR_ADDED | AuditAction.MFA_FACTOR_REMOVED:
            return str(details.get("name") or _plain(details.get("type") or ""))
        case AuditAction.AUDIT_READ:
            # Which rows are hidden is no filter that the reader has chosen.
            return ", ".join(field_label(name) for name in sorted(details) if name in LABELS)
    reason = details.get("reason")
    if str(reason) in REASONS:
        return str(gettext(REASONS[str(reason)]))
    return str(reason or "")


def _roles(change: Any) -> str:
    before, after = ([str(name) for name in names] for names in change)
    added = [f"+{name}" for name in after if name not in before]
    return " ".join([*added, *(f"−{name}" for name in before if name not in after)])


def _plain(code: Any) -> str:
    return str(code).replace("_", " ")
