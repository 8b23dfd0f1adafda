"""flask service-accounts: list, create, suspend, activate and delete service accounts."""

from dataclasses import fields
from typing import Any
from uuid import UUID

import click
from flask.cli import AppGroup

from userapi.infrastructure.pagination import PageRequest
from userapi.machines.account_creation import NewServiceAccount
from userapi.machines.account_search import ServiceAccountFilter
from userapi.machines.validation import MAX_DESCRIPTION, MAX_REASON
from userapi.machines.views import AccountView

from .support import (
    PlainText,
    as_json_option,
    operator,
    print_json,
    print_table,
    safely,
    services,
)

PAGE_SIZE = 100

command = AppGroup(
    "service-accounts", help="List, create, suspend, activate and delete service accounts."
)


def account_named(text: str) -> AccountView:
    """Return the service account with this id or name. Raises ServiceAccountNotFound."""
    try:
        return services().machines.service_accounts.get(UUID(text))
    except ValueError:
        return services().machines.service_accounts.get_by_name(text.lower())


@command.command("list")
@as_json_option
@safely
def list_accounts(as_json: bool) -> None:
    """List all service accounts, by name."""
    found: list[AccountView] = []
    cursor = None
    while True:
        wanted = PageRequest(page_size=PAGE_SIZE, cursor=cursor, sort="name")
        page = services().machines.service_account_search.page(ServiceAccountFilter(), wanted)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    if as_json:
        print_json({"items": [_members(account) for account in found]})
        return
    print_table(
        ["NAME", "ID", "STATUS", "KEYS", "LAST USED (UTC)", "ROLES"],
        [
            [
                account.name,
                account.id,
                account.status,
                account.key_count,
                account.last_used_at and f"{account.last_used_at:%Y-%m-%d %H:%M}",
                ",".join(account.roles),
            ]
            for account in found
        ],
    )


@command.command("show")
@click.argument("name")
@as_json_option
@safely
def show(name: str, as_json: bool) -> None:
    """Show a service account. NAME is its name or id."""
    members = _members(account_named(name))
    if as_json:
        print_json(members)
        return
    print_table(["FIELD", "VALUE"], [[field, value] for field, value in members.items()])


@command.command("create")
@click.argument("name")
@click.option(
    "--description",
    type=PlainText(MAX_DESCRIPTION),
    default="",
    help="What the account is for.",
)
@click.option("--role", "roles", multiple=True, help="A role; can be repeated.")
@safely
def create(name: str, description: str, roles: tuple[str, ...]) -> None:
    """Create a service account without keys and print its id."""
    account = services().machines.service_account_creation.create(
        NewServiceAccount(name=name, description=description, roles=roles), actor=operator()
    )
    click.echo(account.id)


@command.command("suspend")
@click.argument("name")
@click.option("--reason", type=PlainText(MAX_REASON), help="For the audit log.")
@safely
def suspend(name: str, reason: str | None) -> None:
    """Reject the keys and tokens of a service account.

    Its keys are accepted again after `activate`; its tokens are not.
    """
    account = services().machines.service_account_suspension.suspend(
        account_named(name).id, actor=operator(), reason=reason
    )
    click.secho(f"{account.name} is suspended.", fg="green", err=True)


@command.command("activate")
@click.argument("name")
@click.option("--reason", type=PlainText(MAX_REASON), help="For the audit log.")
@safely
def activate(name: str, reason: str | None) -> None:
    """Accept the keys of a suspended service account again."""
    account = services().machines.service_account_suspension.activate(
        account_named(name).id, actor=operator(), reason=reason
    )
    click.secho(f"{account.name} is active.", fg="green", err=True)


@command.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@safely
def delete(name: str, yes: bool) -> None:
    """Delete a service account with its keys and tokens."""
    account = account_named(name)
    if not yes:
        click.confirm(f"Delete {account.name} and its {account.key_count} active keys?", abort=True)
    services().machines.service_account_deletion.delete(account.id, actor=operator())
    click.secho(f"{account.name} is deleted.", fg="green", err=True)


def _members(account: AccountView) -> dict[str, Any]:
    names = [field.name for field in fields(account) if not field.name.startswith("_")]
    return {name: getattr(account, name) for name in names}
