"""flask api-keys: list, create, rotate, revoke and check API keys.

The text of a new key is printed once, alone on standard output.
"""

import re
import sys
from dataclasses import asdict
from datetime import timedelta
from uuid import UUID

import click
from flask.cli import AppGroup

from userapi.machines.key_creation import NewApiKey
from userapi.machines.key_owners import service_owner, user_owner
from userapi.machines.key_rotation import DEFAULT_OVERLAP, MAX_OVERLAP
from userapi.machines.key_text import parse_key
from userapi.machines.validation import MAX_KEY_NAME, UNSET, Expiry

from .service_accounts import account_named
from .support import (
    PlainText,
    as_json_option,
    operator,
    print_json,
    print_table,
    safely,
    services,
    user_named,
)

UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1)}

command = AppGroup("api-keys", help="List, create, rotate, revoke and check API keys.")


@command.command("list")
@click.option("--service", help="Name or id of a service account.")
@click.option("--user", help="Name, e-mail or id of a user.")
@as_json_option
@safely
def list_keys(service: str | None, user: str | None, as_json: bool) -> None:
    """List the keys of a service account or of a user, newest first."""
    if (service is None) == (user is None):
        raise click.UsageError("Use either --service or --user.")
    owner = (
        service_owner(account_named(service).id)
        if service is not None
        else user_owner(user_named(str(user)).id)
    )
    found = services().machines.api_keys.list_of(owner)
    if as_json:
        print_json({"items": [asdict(key) for key in found]})
        return
    print_table(
        ["ID", "NAME", "HINT", "STATUS", "EXPIRES (UTC)", "LAST USED (UTC)", "PERMISSIONS"],
        [
            [
                key.id,
                key.name,
                key.hint,
                key.status,
                "never" if key.expires_at is None else f"{key.expires_at:%Y-%m-%d %H:%M}",
                key.last_used_at and f"{key.last_used_at:%Y-%m-%d %H:%M}",
                "all" if key.permissions is None else ",".join(key.permissions),
            ]
            for key in found
        ],
    )


@command.command("create")
@click.option("--service", required=True, help="Name or id of the service account.")
@click.option("--name", type=PlainText(MAX_KEY_NAME), required=True, help="Name of the key.")
@click.option("--expires", help="90d, 12h, or never; default: API_KEY_DEFAULT_DAYS.")
@click.option("--permission", "permissions", multiple=True, help="Allow only this; repeatable.")
@click.option("--network", "networks", multiple=True, help="Allow only this; repeatable.")
@safely
def create(
    service: str,
    name: str,
    expires: str | None,
    permissions: tuple[str, ...],
    networks: tuple[str, ...],
) -> None:
    """Create a key of a service account and print it. It cannot be shown again."""
    created = services().machines.key_creation.create(
        service_owner(account_named(service).id),
        NewApiKey(
            name=name,
            expires_at=_expiry(expires),
            permissions=list(permissions) or None,
            allowed_networks=list(networks) or None,
        ),
        actor=operator(),
    )
    click.secho(f"Key {created.view.id}:", err=True)
    click.echo(created.text)


@command.command("rotate")
@click.argument("key_id", type=click.UUID)
@click.option(
    "--overlap-seconds",
    type=click.IntRange(0, int(MAX_OVERLAP.total_seconds())),
    default=int(DEFAULT_OVERLAP.total_seconds()),
    show_default=True,
    help="How long the old key continues to work; 0 revokes it.",
)
@safely
def rotate(key_id: UUID, overlap_seconds: int) -> None:
    """Replace a key and print the new one. It cannot be shown again."""
    created = services().machines.key_rotation.rotate(
        services().machines.api_keys.owner_of(key_id),
        key_id,
        actor=operator(),
        overlap=timedelta(seconds=overlap_seconds),
    )
    click.secho(f"Key {created.view.id}:", err=True)
    click.echo(created.text)


@command.command("revoke")
@click.argument("key_id", type=click.UUID)
@safely
def revoke(key_id: UUID) -> None:
    """Revoke a key. The next request with it is rejected."""
    owner = services().machines.api_keys.owner_of(key_id)
    services().machines.key_revocation.revoke(owner, key_id, actor=operator())
    click.secho(f"Key {key_id} is revoked.", fg="green", err=True)


@command.command("check")
def check() -> None:
    """Check the form and checksum of a key from standard input, offline.

    The exit code is 0 for a well-formed key, otherwise 1. Only the service can check whether the
    key is valid.
    """
    parsed = parse_key(sys.stdin.readline().strip())
    if parsed is None:
        click.secho("This is not an API key.", fg="red", err=True)
        raise SystemExit(1)
    click.echo(f"{parsed.owner_type} key {parsed.key_id}")


def _expiry(text: str | None) -> Expiry:
    """Return the end that an option names. Raises UsageError."""
    if text is None:
        return UNSET
    if text == "never":
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,4})([hd])", text)
    if found is None:
        raise click.UsageError("--expires must be a duration such as 90d or 12h, or never.")
    return services().clock.now() + int(found[1]) * UNITS[found[2]]
