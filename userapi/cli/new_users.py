"""flask users create-admin, create, invite: new users on the command line."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import click

from userapi.accounts.new_users import NewUser
from userapi.accounts.search import UserFilter
from userapi.infrastructure.pagination import PageRequest
from userapi.roles.models import TOP_ROLE

from .support import operator, read_password, safely, services


@click.command("create-admin")
@click.option("--username", help="User name; prompted for by default.")
@click.option("--email", help="E-mail address; prompted for by default.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--generate", is_flag=True, help="Generate a password and show it once.")
@click.option("--if-none", is_flag=True, help="Do nothing if a superadmin already exists.")
@safely
def create_admin(
    username: str | None, email: str | None, password_stdin: bool, generate: bool, if_none: bool
) -> None:
    """Create a superadmin."""
    if if_none:
        found = services().search.user_search.page(
            UserFilter(role=TOP_ROLE), PageRequest(page_size=1)
        )
        if found.items:
            return
    username = username or click.prompt("User name")
    email = email or click.prompt("E-mail")
    password, made = read_password(from_stdin=password_stdin, generate=generate)
    user = services().accounts.account_creation.create(
        NewUser(username=username, email=email, password=password, roles=[TOP_ROLE]),
        actor=operator(),
    )
    click.secho(f"Created the superadmin {user.username} <{user.email}>.", fg="green")
    if made:
        click.echo("Password (shown only once):\n")
        click.secho(f"    {password}\n", bold=True)


def _identity(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for the name, address and roles of a new user."""
    for parameter in (
        click.option("--role", "roles", multiple=True, help="A role; may be repeated."),
        click.option("--email", help="E-mail address; prompted for by default."),
        click.option("--username", help="The same as NAME."),
        click.argument("name", required=False),
    ):
        command = parameter(command)
    return command


def _new_user(
    name: str | None, username: str | None, email: str | None, roles: Sequence[str]
) -> NewUser:
    if name and username and name != username:
        raise click.UsageError("The user name is given twice. Give it once.")
    return NewUser(
        username=name or username or click.prompt("User name"),
        email=email or click.prompt("E-mail"),
        roles=roles,
    )


@click.command("create")
@_identity
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--generate", is_flag=True, help="Generate a password and show it once.")
@click.option(
    "--must-change-password", is_flag=True, help="Require a new password at the first log-in."
)
@safely
def create(
    name: str | None,
    username: str | None,
    email: str | None,
    roles: Sequence[str],
    password_stdin: bool,
    generate: bool,
    must_change_password: bool,
) -> None:
    """Create an active user. The password is prompted for, read or generated."""
    new = _new_user(name, username, email, roles)
    password, made = read_password(from_stdin=password_stdin, generate=generate)
    user = services().accounts.account_creation.create(
        replace(new, password=password, must_change_password=must_change_password),
        actor=operator(),
    )
    click.secho(f"Created {user.username} <{user.email}>.", fg="green")
    if made:
        click.echo("Password (shown only once):\n")
        click.secho(f"    {password}\n", bold=True)


@click.command("invite")
@_identity
@safely
def invite(name: str | None, username: str | None, email: str | None, roles: Sequence[str]) -> None:
    """Invite a user by mail. They are pending until they set a password."""
    user = services().accounts.account_creation.create(
        _new_user(name, username, email, roles), actor=operator()
    )
    click.secho(f"Invited {user.username} <{user.email}>. The worker sends the mail.", fg="green")
