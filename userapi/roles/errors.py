"""Errors of the use cases of roles."""

from userapi.errors import Conflict, Forbidden, NotFound


class RoleNotFound(NotFound):
    """No role has this name."""

    title = "This role does not exist."


class RoleNameTaken(Conflict):
    """A role with this name already exists."""

    code = "role_name_taken"
    title = "A role with this name already exists."


class RoleCycle(Conflict):
    """A role would inherit from itself."""

    code = "role_cycle"
    title = "A role cannot inherit from itself."


class RoleInUse(Conflict):
    """Users have the role, or other roles inherit from it."""

    code = "role_in_use"
    title = "The role is in use."


class BuiltinRole(Conflict):
    """The role is part of the service."""

    code = "builtin_role"
    title = "Built-in roles cannot be changed."


class PermissionEscalation(Forbidden):
    """The actor would grant permissions that they do not hold."""

    code = "permission_escalation"
    title = "You cannot grant permissions that you do not hold."


class InsufficientRank(Forbidden):
    """The other user holds as many permissions as the actor, or more."""

    code = "insufficient_rank"
    title = "You do not outrank this user or service account."


class LastSuperadmin(Conflict):
    """No active superadmin would remain."""

    code = "last_superadmin"
    title = "The last active superadmin cannot be removed."
