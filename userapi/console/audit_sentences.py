"""Audit rows as sentences for people. The code of the action is shown beside the sentence."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from userapi.actor import ActorType
from userapi.audit.actions import AuditAction, Outcome

# {who} did it and {whom} is the target. What comes after the colon is added from the details.
SENTENCES = {
    AuditAction.API_KEY_CREATED: "{who} created an API key",
    AuditAction.API_KEY_REVOKED: "{who} revoked an API key",
    AuditAction.API_KEY_ROTATED: "{who} replaced an API key",
    AuditAction.API_KEY_UPDATED: "{who} changed an API key",
    AuditAction.AUDIT_ANCHORED: "{who} copied the seal of the audit log to another place",
    AuditAction.AUDIT_PRUNED: "{who} deleted old rows of the audit log",
    AuditAction.AUDIT_READ: "{who} read the audit log",
    AuditAction.AUTH_KEY_REFUSED: "The API key {whom} was refused",
    AuditAction.AUTH_LOGIN: "{who} logged in",
    AuditAction.AUTH_LOGIN_BLOCKED: "{who} was blocked after too many failed log-ins",
    AuditAction.AUTH_LOGOUT: "{who} logged out",
    AuditAction.AUTH_MFA_REQUIRED: "{who} entered the right password and was asked for a second "
    "factor",
    AuditAction.AUTH_PASSKEY_CLONE_SUSPECTED: "A passkey of {whom} may have been copied",
    AuditAction.AUTH_PASSWORD_CHANGED: "{who} changed the password of {whom}",
    AuditAction.AUTH_PASSWORD_RESET: "{who} set a new password for {whom} with a link from a mail",
    AuditAction.AUTH_PASSWORD_RESET_REQUESTED: "{who} requested a link to set a new password for "
    "{whom}",
    AuditAction.AUTH_PERMISSION_DENIED: "{who} lacked a permission",
    AuditAction.AUTH_REFRESH: "{who} continued a session",
    AuditAction.AUTH_REFRESH_REUSE_DETECTED: "A refresh token of {who} was used twice, and the "
    "session ended",
    AuditAction.AUTH_STEP_UP: "{who} confirmed the own identity again",
    AuditAction.AUTH_TOKEN_ISSUED: "{who} got a client token",
    AuditAction.AUTH_TOKEN_REVOKED: "{who} revoked a client token",
    AuditAction.BULK_CANCELLED: "{who} cancelled a bulk change",
    AuditAction.IMPORT_CANCELLED: "{who} cancelled an import",
    AuditAction.KEY_REVOKED: "{who} revoked the signing key {whom}",
    AuditAction.MFA_FACTOR_ADDED: "{who} added a second factor for {whom}",
    AuditAction.MFA_FACTOR_REMOVED: "{who} removed a second factor of {whom}",
    AuditAction.MFA_FACTOR_RENAMED: "{who} renamed a second factor of {whom}",
    AuditAction.MFA_RECOVERY_CODES_CREATED: "{who} created recovery codes for {whom}",
    AuditAction.MFA_RECOVERY_CODE_USED: "{who} used a recovery code of {whom}",
    AuditAction.MFA_RESET: "{who} removed all second factors of {whom}",
    AuditAction.ROLE_CREATED: "{who} created the role {whom}",
    AuditAction.ROLE_DELETED: "{who} deleted the role {whom}",
    AuditAction.ROLE_UPDATED: "{who} changed the role {whom}",
    AuditAction.SERVICE_ACCOUNT_ACTIVATED: "{who} activated {whom}, a service account",
    AuditAction.SERVICE_ACCOUNT_CREATED: "{who} created {whom}, a service account",
    AuditAction.SERVICE_ACCOUNT_DELETED: "{who} deleted {whom}, a service account",
    AuditAction.SERVICE_ACCOUNT_ROLES_CHANGED: "{who} changed the roles of {whom}, a service "
    "account",
    AuditAction.SERVICE_ACCOUNT_SUSPENDED: "{who} suspended {whom}, a service account",
    AuditAction.SERVICE_ACCOUNT_UPDATED: "{who} changed {whom}, a service account",
    AuditAction.SESSION_REVOKED: "{who} ended a session of {whom}",
    AuditAction.USER_ACTIVATED: "{who} activated {whom}",
    AuditAction.USER_CREATED: "{who} created {whom}",
    AuditAction.USER_DELETED: "{who} deleted {whom}",
    AuditAction.USER_EMAIL_CHANGED: "{who} changed the e-mail address of {whom}",
    AuditAction.USER_EMAIL_CHANGE_REQUESTED: "{who} asked to change the e-mail address of {whom}",
    AuditAction.USER_EMAIL_VERIFIED: "{who} confirmed the e-mail address of {whom}",
    AuditAction.USER_EXPORTED: "{who} downloaded data of {whom}",
    AuditAction.USER_IMPORTED: "{who} imported {whom}",
    AuditAction.USER_INVITED: "{who} invited {whom}",
    AuditAction.USER_LOCKED: "{whom} was locked after too many failed log-ins",
    AuditAction.USER_REGISTERED: "{whom} signed up",
    AuditAction.USER_ROLES_CHANGED: "{who} changed the roles of {whom}",
    AuditAction.USER_SUSPENDED: "{who} suspended {whom}",
    AuditAction.USER_UNLOCKED: "{who} unlocked {whom}",
    AuditAction.USER_UPDATED: "{who} changed the profile of {whom}",
}
# The sentences of actions that did not succeed.
NOT_DONE = {
    (AuditAction.AUTH_LOGIN, Outcome.FAILURE): "A log-in as {whom} failed",
    (AuditAction.AUTH_LOGIN, Outcome.DENIED): "{whom} was not let in",
    (AuditAction.AUTH_STEP_UP, Outcome.FAILURE): "{who} could not confirm the own identity",
    (AuditAction.AUTH_LOGIN_BLOCKED, Outcome.DENIED): "A log-in as {whom} was blocked after too "
    "many failed ones",
}
# Actions whose name already says that something was refused.
REFUSALS = {
    AuditAction.AUTH_KEY_REFUSED,
    AuditAction.AUTH_LOGIN_BLOCKED,
    AuditAction.AUTH_PASSKEY_CLONE_SUSPECTED,
    AuditAction.AUTH_PERMISSION_DENIED,
    AuditAction.AUTH_REFRESH_REUSE_DETECTED,
}
REASONS = {
    "account_deleted": "the account was deleted",
    "account_suspended": "the account was suspended",
    "account_not_active": "the account is not active",
    "cap_reached": "there were too many sessions",
    "factor_removed": "a second factor was removed",
    "invalid_code": "wrong code",
    "invalid_credentials": "wrong name or password",
    "logout": "log-out",
    "mfa_enabled": "a second factor was added",
    "mfa_reset": "all second factors were removed",
    "password_changed": "the password was changed",
    "password_reset": "the password was reset",
    "refresh_reused": "a refresh token was used twice",
    "revoked": "by request",
    "until_reached": "the suspension was over",
}


def sentence(row: Row[Any], names: Mapping[str, str]) -> str:
    """Return what a row records. `names` are the user names of targets by id."""
    details = row.details or {}
    who, whom = _who(row), _whom(row, names)
    not_done = NOT_DONE.get((row.action, row.outcome))
    text = (not_done or SENTENCES.get(row.action) or f"{{who}}: {row.action}").format(
        who=who, whom="the own account" if row.target_id == str(row.actor_id) else whom
    )
    if row.outcome != Outcome.SUCCESS and not not_done and row.action not in REFUSALS:
        text = f"{text} – without success"
    added = _addition(row, details)
    text = f"{text}: {added}" if added else text
    return text[0].upper() + text[1:] if row.actor_type == ActorType.ANONYMOUS else text


def _who(row: Row[Any]) -> str:
    if row.actor_username:
        return str(row.actor_username)
    if row.actor_id:
        return "a deleted user"
    return {
        ActorType.ANONYMOUS: "somebody",
        ActorType.SERVICE: "a service",
        ActorType.SYSTEM: "the system",
        ActorType.USER: "a user",
    }[ActorType(row.actor_type)]


def _whom(row: Row[Any], names: Mapping[str, str]) -> str:
    details = row.details or {}
    if row.target_type == "user" and row.target_id:
        return names.get(row.target_id) or str(details.get("username") or "a deleted user")
    if row.target_type == "session":
        owner = str(details.get("user_id") or "")
        return names.get(owner) or ("a deleted user" if owner else "the own account")
    if row.target_id:
        return str(details.get("name") or row.target_id)
    return "users" if row.action == AuditAction.USER_EXPORTED else "an unknown account"


def _addition(row: Row[Any], details: Mapping[str, Any]) -> str:
    """Return what the details add: a reason, or what exactly was changed."""
    changes = row.changes or {}
    match row.action:
        case AuditAction.AUTH_PERMISSION_DENIED:
            return str(details.get("permission") or _plain(details.get("code", "")))
        case AuditAction.USER_ROLES_CHANGED | AuditAction.SERVICE_ACCOUNT_ROLES_CHANGED:
            return _roles(changes.get("roles") or ([], []))
        case AuditAction.USER_UPDATED | AuditAction.ROLE_UPDATED:
            return ", ".join(_plain(name) for name in changes)
        case AuditAction.USER_EMAIL_CHANGED:
            return " → ".join(map(str, changes.get("email") or ()))
        case AuditAction.MFA_FACTOR_ADDED | AuditAction.MFA_FACTOR_REMOVED:
            return str(details.get("name") or _plain(details.get("type") or ""))
        case AuditAction.AUDIT_READ:
            return _plain(", ".join(details))
    reason = details.get("reason")
    return REASONS.get(str(reason), str(reason)) if reason else ""


def _roles(change: Any) -> str:
    before, after = ([str(name) for name in names] for names in change)
    added = [f"+{name}" for name in after if name not in before]
    return " ".join([*added, *(f"−{name}" for name in before if name not in after)])


def _plain(code: Any) -> str:
    return str(code).replace("_", " ")
