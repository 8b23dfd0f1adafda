"""The actions of bulk changes, and the permission that each needs."""

from enum import StrEnum

from userapi.permissions import Permission


class BulkAction(StrEnum):
    """The actions on many users."""

    ACTIVATE = "activate"
    ASSIGN_ROLE = "assign_role"
    DELETE = "delete"
    REMOVE_ROLE = "remove_role"
    SUSPEND = "suspend"
    UNLOCK = "unlock"


PERMISSIONS = {
    BulkAction.ACTIVATE: Permission.USERS_SUSPEND,
    BulkAction.ASSIGN_ROLE: Permission.ROLES_ASSIGN,
    BulkAction.DELETE: Permission.USERS_DELETE,
    BulkAction.REMOVE_ROLE: Permission.ROLES_ASSIGN,
    BulkAction.SUSPEND: Permission.USERS_SUSPEND,
    BulkAction.UNLOCK: Permission.USERS_UNLOCK,
}
WITH_A_ROLE = {BulkAction.ASSIGN_ROLE, BulkAction.REMOVE_ROLE}
