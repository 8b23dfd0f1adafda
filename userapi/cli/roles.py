"""flask roles: what roles there are."""

from flask.cli import AppGroup

from .support import print_table, safely, services

command = AppGroup("roles", help="Read roles.")


@command.command("list")
@safely
def list_roles() -> None:
    """List all roles."""
    print_table(
        ["ROLE", "INHERITS", "USERS", "NAMES"],
        [
            [role.name, ",".join(role.parents), role.user_count, " ".join(role.permissions)]
            for role in services().roles.all()
        ],
    )
