"""flask users: manage users on the command line. Changes are audited as `system`."""

from dataclasses import asdict
from datetime import UTC, datetime

import click
from flask.cli import AppGroup

from userapi.accounts.models import UserStatus
from userapi.accounts.search import UserFilter
from userapi.accounts.views import UserView
from userapi.characters import printable
from userapi.clock import rfc3339
from userapi.infrastructure.pagination import PageRequest

from . import LazyCommand
from .new_users import create, create_admin, invite
from .support import (
    PlainText,
    as_json_option,
    operator,
    print_json,
    print_table,
    read_password,
    safely,
    services,
    user_named,
)

command = AppGroup("users", help="Create, find and change users.")
for part in (create_admin, create, invite):
    command.add_command(part)
command.add_command(
    LazyCommand(
        "export",
        "Export users to a file or to standard output.",
        module="userapi.cli.transfers",
        attribute="export_users",
    )
)
command.add_command(
    LazyCommand(
        "import",
        "Import users from NDJSON or CSV.",
        module="userapi.cli.transfers",
        attribute="import_users",
    )
)
command.add_command(
    LazyCommand(
        "stats",
        "Print the number of users, and what they did each day (UTC).",
        module="userapi.cli.statistics",
    )
)


@command.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Skip the confirmation.")
@safely
def delete(name: str, yes: bool) -> None:
    """Delete a user and their sessions. Audit rows stay."""
    user = user_named(name)
    if not yes:
        click.confirm(f"Delete {user.username} <{user.email}> permanently?", abort=True)
    services().accounts.account_deletion.delete(user.id, actor=operator())
    click.secho(f"Deleted {user.username}.", fg="green")


@command.command("list")
@click.option("--search", help="Part of a name or address.")
@click.option("--status", type=click.Choice([str(s) for s in UserStatus]))
@click.option("--role", help="Only users with this role.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@as_json_option
@safely
def list_users(
    search: str | None, status: str | None, role: str | None, limit: int, as_json: bool
) -> None:
    """List users, newest first."""
    wanted = UserFilter(search=search, status=UserStatus(status) if status else None, role=role)
    users: list[UserView] = []
    cursor = None
    while len(users) < limit:
        page = services().search.user_search.page(
            wanted, PageRequest(page_size=min(100, limit - len(users)), cursor=cursor)
        )
        users += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    if as_json:
        print_json(
            {
                "items": [user.public for user in users],
                "total": page.total,
                "total_is_exact": page.total_is_exact,
            }
        )
        return
    print_table(
        ["NAME", "E-MAIL", "STATUS", "ROLES", "CREATED", "LAST LOG-IN"],
        [
            [
                u.username,
                u.email,
                u.status,
                ",".join(u.roles),
                _day(u.created_at),
                _day(u.last_login_at),
            ]
            for u in users
        ],
    )
    more = "" if page.total_is_exact else "more than "
    click.echo(f"\n{len(users)} of {more}{page.total} shown.")


@command.command("show")
@click.argument("name")
@as_json_option
@safely
def show(name: str, as_json: bool) -> None:
    """Show a user, by name, e-mail or id."""
    user = user_named(name)
    mfa = services().factor_listing.factor_list.of(user.id, own=False)
    if as_json:
        print_json({**user.public, "mfa": asdict(mfa)})
        return
    for field, value in user.public.items():
        shown = rfc3339(value) if isinstance(value, datetime) else value
        click.echo(f"{field + ':':22} {'' if shown is None else printable(str(shown))}")
    click.echo(f"{'recovery_codes_left:':22} {mfa.recovery_codes_left}")
    for factor in mfa.factors:
        used = f"last used {_day(factor.last_used_at)}" if factor.last_used_at else "never used"
        added = f"added {_day(factor.created_at)}, {used}"
        click.echo(f"{'factor:':22} {factor.type} {printable(factor.name)} ({added})")


@command.command("reset-mfa")
@click.argument("name")
@safely
def reset_mfa(name: str) -> None:
    """Remove all second factors of a user, and end all sessions."""
    user = user_named(name)
    if services().factors.mfa_reset.reset(user.id, actor=operator()):
        click.secho(
            f"Removed the second factors of {user.username}. All sessions have ended.", fg="green"
        )
    else:
        click.echo(f"{user.username} has no second factor.")


@command.command("set-password")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--generate", is_flag=True, help="Generate a password and show it once.")
@safely
def set_password(name: str, password_stdin: bool, generate: bool) -> None:
    """Set the password of a user, and end all their sessions."""
    user = user_named(name)
    password, made = read_password(from_stdin=password_stdin, generate=generate)
    services().authentication.password_assignment.assign(user.id, password, actor=operator())
    click.secho(f"Set the password of {user.username}. All sessions have ended.", fg="green")
    if made:
        click.echo("Password (shown only once):\n")
        click.secho(f"    {password}\n", bold=True)


@command.command("set-role")
@click.argument("name")
@click.argument("role")
@safely
def set_role(name: str, role: str) -> None:
    """Replace the roles of a user with one role."""
    user = user_named(name)
    changed = services().accounts.role_assignment.set_roles(user.id, [role], actor=operator())
    click.secho(f"Set the role of {changed.username} to {', '.join(changed.roles)}.", fg="green")


@command.command("suspend")
@click.argument("name")
@click.option("--reason", type=PlainText(500), help="The reason; shown to administrators.")
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="End of the suspension, in UTC.",
)
@safely
def suspend(name: str, reason: str | None, until: datetime | None) -> None:
    """Suspend a user, and end all their sessions."""
    user = user_named(name)
    services().accounts.account_suspension.suspend(
        user.id,
        actor=operator(),
        reason=reason,
        until=until.replace(tzinfo=UTC) if until else None,
    )
    click.secho(f"Suspended {user.username}.", fg="green")


@command.command("activate")
@click.argument("name")
@safely
def activate(name: str) -> None:
    """Activate a pending or suspended user."""
    user = user_named(name)
    services().accounts.account_suspension.activate(user.id, actor=operator())
    click.secho(f"Activated {user.username}.", fg="green")


@command.command("unlock")
@click.argument("name")
@safely
def unlock(name: str) -> None:
    """Clear the failed log-ins and wrong codes of a user."""
    user = user_named(name)
    services().accounts.account_suspension.unlock(user.id, actor=operator())
    click.secho(f"Unlocked {user.username}.", fg="green")


def _day(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d") if moment else ""
