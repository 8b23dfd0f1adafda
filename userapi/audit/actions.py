"""The closed sets of audited actions and outcomes."""

from enum import StrEnum


class AuditAction(StrEnum):
    """What happened, as `subject.past_tense`, in alphabetical order."""

    AUDIT_ANCHORED = "audit.anchored"
    AUDIT_PRUNED = "audit.pruned"
    AUDIT_READ = "audit.read"
    AUTH_LOGIN = "auth.login"
    AUTH_LOGIN_BLOCKED = "auth.login_blocked"
    AUTH_LOGOUT = "auth.logout"
    AUTH_PASSWORD_CHANGED = "auth.password_changed"
    AUTH_PASSWORD_RESET = "auth.password_reset"
    AUTH_PASSWORD_RESET_REQUESTED = "auth.password_reset_requested"
    AUTH_PERMISSION_DENIED = "auth.permission_denied"
    AUTH_REFRESH = "auth.refresh"
    AUTH_REFRESH_REUSE_DETECTED = "auth.refresh_reuse_detected"
    AUTH_STEP_UP = "auth.step_up"
    IMPORT_CANCELLED = "import.cancelled"
    KEY_REVOKED = "key.revoked"
    ROLE_CREATED = "role.created"
    ROLE_DELETED = "role.deleted"
    ROLE_UPDATED = "role.updated"
    SESSION_REVOKED = "session.revoked"
    USER_ACTIVATED = "user.activated"
    USER_CREATED = "user.created"
    USER_DELETED = "user.deleted"
    USER_EMAIL_CHANGED = "user.email_changed"
    USER_EMAIL_CHANGE_REQUESTED = "user.email_change_requested"
    USER_EMAIL_VERIFIED = "user.email_verified"
    USER_EXPORTED = "user.exported"
    USER_IMPORTED = "user.imported"
    USER_INVITED = "user.invited"
    USER_LOCKED = "user.locked"
    USER_REGISTERED = "user.registered"
    USER_ROLES_CHANGED = "user.roles_changed"
    USER_SUSPENDED = "user.suspended"
    USER_UNLOCKED = "user.unlocked"
    USER_UPDATED = "user.updated"


class Outcome(StrEnum):
    """The result of an action."""

    DENIED = "denied"
    FAILURE = "failure"
    SUCCESS = "success"
