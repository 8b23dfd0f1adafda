"""flask keys: the keys that sign access tokens."""

from datetime import datetime, timedelta

import click
from flask.cli import AppGroup

from userapi.authentication.key_files import KeyFolder, KeyRecord, KeyState
from userapi.settings import JWT_ALGORITHMS

from .support import print_table, safely, services

# Verifiers may keep the published keys for so long (Cache-Control of /.well-known/jwks.json).
KEYS_KEPT_ELSEWHERE = timedelta(minutes=5)

command = AppGroup("keys", help="Make, rotate and list the keys that sign access tokens.")


def _require_keys() -> KeyFolder:
    settings = services().settings
    if settings.jwt_algorithm == "HS256":
        raise click.ClickException(
            "JWT_ALGORITHM is HS256, which signs with JWT_SECRET_KEY: there are no keys to "
            "generate, rotate or list. "
            f"Set it to one of {', '.join(JWT_ALGORITHMS[1:])} first."
        )
    return KeyFolder(settings, services().clock)


def _require_folder_signs() -> KeyFolder:
    folder = _require_keys()
    if services().settings.jwt_private_key_file is not None:
        raise click.ClickException(
            "JWT_PRIVATE_KEY_FILE names the key that signs. To rotate it, put the new key in front "
            "of the former one in that file; or leave the variable out and use `flask keys`."
        )
    return folder


@command.command("list")
@safely
def list_keys() -> None:
    """List the keys and what each is for."""
    folder = _require_keys()
    own_file = services().settings.jwt_private_key_file
    usable = {record.kid for record in folder.usable()}
    rows: list[list[object]] = []
    if own_file is not None:
        kid = services().keys.active().kid
        algorithm = services().settings.jwt_algorithm
        rows.append([kid, algorithm, KeyState.ACTIVE, "", "", "signs now (JWT_PRIVATE_KEY_FILE)"])
    for record in folder.records():
        purpose = _purpose(record, usable=record.kid in usable, file_signs=own_file is not None)
        rows.append(
            [
                record.kid,
                record.algorithm,
                record.state,
                _readable(record.created_at),
                _readable(record.since),
                purpose,
            ]
        )
    if not rows:
        click.echo("There are no keys yet. `flask keys generate` makes the first ones.")
        return
    print_table(["KEY", "ALGORITHM", "STATE", "CREATED", "SINCE", ""], rows)


@command.command("rotate")
@safely
def rotate() -> None:
    """Let the next key sign. The former one verifies until its tokens have expired."""
    folder = _require_folder_signs()
    now = services().clock.now()
    active = folder.rotate()
    click.secho(f"{active.kid} signs now. Running processes follow within a second.", fg="green")
    if now - datetime.fromisoformat(active.created_at) < KEYS_KEPT_ELSEWHERE:
        click.secho(
            "It was made less than five minutes ago: services that keep a copy of "
            "/.well-known/jwks.json may refuse its tokens until they fetch it again.",
            fg="yellow",
            err=True,
        )


@command.command("generate")
@safely
def generate() -> None:
    """Make the first keys: one that signs and the next one."""
    made = _require_folder_signs().generate()
    if not made:
        click.echo("There is an active key and a next one already; `flask keys rotate` moves on.")
    for record in made:
        click.secho(f"Made {record.kid} ({record.algorithm}, {record.state}).", fg="green")


def _purpose(record: KeyRecord, *, usable: bool, file_signs: bool) -> str:
    algorithm = services().settings.jwt_algorithm
    if record.algorithm != algorithm:
        return f"not used: JWT_ALGORITHM is {algorithm}"
    if not usable:
        return "verifies no more"
    if record.state is KeyState.RETIRED:
        if record.verifies_until is None:
            return "verifies until its tokens have expired"
        return f"verifies until {_readable(record.verifies_until)}"
    if file_signs:
        return "verifies"
    return "signs now" if record.state is KeyState.ACTIVE else "published; signs after `rotate`"


def _readable(moment: str) -> str:
    return datetime.fromisoformat(moment).strftime("%Y-%m-%dT%H:%M:%SZ")
