"""flask keys: the keys that sign access tokens."""

import click
from flask.cli import AppGroup

from userapi.authentication.keys import KeyRing
from userapi.clock import SystemClock
from userapi.settings import JWT_ALGORITHMS, Settings, SettingsError

from .support import print_table, safely, services

command = AppGroup("keys", help="Make, rotate and list the keys that sign access tokens.")


def _require_keys(ring: KeyRing) -> KeyRing:
    if ring.algorithm == "HS256":
        raise click.ClickException(
            "JWT_ALGORITHM is HS256, which signs with JWT_SECRET_KEY: there are no keys. "
            f"Set it to one of {', '.join(JWT_ALGORITHMS[1:])} first."
        )
    return ring


@command.command("list")
@safely
def list_keys() -> None:
    """List the keys and what each is for."""
    ring = _require_keys(services().keys)
    signing = ring.active().kid
    print_table(
        ["KEY", "ALGORITHM", "STATE", "SINCE", ""],
        [
            [r.kid, r.algorithm, r.state, r.since, "signs now" if r.kid == signing else ""]
            for r in ring.records()
        ],
    )


@command.command("rotate")
@safely
def rotate() -> None:
    """Let the next key sign. The former one verifies until its tokens have expired."""
    active = _require_keys(services().keys).rotate()
    click.secho(f"{active.kid} signs now. Running processes follow within a second.", fg="green")


@command.command("generate")
def generate() -> None:
    """Make the first keys: one that signs and the next one."""
    # Without a key there is no application yet, so this command needs the settings alone.
    try:
        made = KeyRing.prepare(Settings.load(), SystemClock())
    except SettingsError as exc:
        raise click.ClickException(str(exc)) from exc
    if not made:
        click.echo("There is an active key and a next one already; `flask keys rotate` moves on.")
    for record in made:
        click.secho(f"Made {record.kid} ({record.algorithm}, {record.state}).", fg="green")
