"""flask keys: the keys that sign access tokens."""

from datetime import datetime, timedelta

import click
import structlog
from flask.cli import AppGroup
from sqlalchemy.exc import SQLAlchemyError

from userapi.audit.actions import AuditAction
from userapi.authentication.key_files import parse_keys
from userapi.authentication.key_folder import KeyFolder, KeyRecord, KeyState, Revocation
from userapi.settings import JWT_ALGORITHMS

from .support import as_json_option, operator, print_json, print_table, safely, services

# Verifiers may cache the published keys for this time (Cache-Control of /.well-known/jwks.json).
MAX_CACHE_AGE = timedelta(minutes=5)

log = structlog.get_logger(__name__)

command = AppGroup("keys", help="Create, rotate, revoke and list the keys that sign access tokens.")


def _require_keys() -> KeyFolder:
    settings = services().settings
    if settings.jwt_algorithm == "HS256":
        raise click.ClickException(
            "JWT_ALGORITHM is HS256, which signs with JWT_SECRET_KEY: there are no keys to "
            "generate, rotate or list. "
            f"Set it to one of {', '.join(JWT_ALGORITHMS[1:])} first."
        )
    return services().keys.key_folder


def _require_folder_signs() -> KeyFolder:
    folder = _require_keys()
    if services().settings.jwt_private_key_file is not None:
        raise click.ClickException(
            "JWT_PRIVATE_KEY_FILE contains the key that signs. To rotate it, put the new key "
            "before the former one in that file. To use `flask keys`, remove the variable."
        )
    return folder


@command.command("list")
@as_json_option
@safely
def list_keys(as_json: bool) -> None:
    """List the keys and the purpose of each."""
    folder = _require_keys()
    own_file = services().settings.jwt_private_key_file
    usable = {record.kid for record in folder.usable()}
    rows: list[list[object]] = []
    if own_file is not None:
        kid = services().keys.keys.active().kid
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
    if as_json:
        names = ("kid", "algorithm", "state", "created_at", "since", "purpose")
        items = [dict(zip(names, [cell or None for cell in row], strict=True)) for row in rows]
        print_json({"items": items})
        return
    if not rows:
        click.echo("There are no keys. Run `flask keys generate` to create them.")
        return
    print_table(["KEY", "ALGORITHM", "STATE", "CREATED", "SINCE", ""], rows)


@command.command("rotate")
@safely
def rotate() -> None:
    """Sign with the next key. The former one verifies until its tokens have expired.

    For a stolen key use `flask keys revoke`: after a rotation its tokens are still accepted.
    """
    folder = _require_folder_signs()
    now = services().clock.now()
    active = folder.rotate()
    click.secho(f"{active.kid} signs now. Running processes follow within a second.", fg="green")
    if now - datetime.fromisoformat(active.created_at) < MAX_CACHE_AGE:
        _warn_of_cached_keys()


# The id of one in 64 keys begins with a hyphen (base64url), and is not an option.
@command.command("revoke", context_settings={"ignore_unknown_options": True})
@click.argument("kid")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@safely
def revoke(kid: str, yes: bool) -> None:
    """Delete a stolen key. Within two seconds nothing verifies its tokens.

    If it was the active key, the next one signs. Clients refresh their tokens.
    """
    folder = _require_keys()
    _refuse_key_of_the_file(kid)
    if not yes:
        click.confirm(f"Every access token of {kid} stops working. Revoke the key?", abort=True)
    revocation = folder.revoke(kid)
    log.warning("keys.revoked", kid=kid, state=revocation.revoked.state)
    click.secho(
        f"{kid} is revoked and its file is deleted. Running processes follow within two seconds.",
        fg="green",
    )
    _show_successor(revocation)
    _record(revocation)
    click.secho(
        "Services that cache /.well-known/jwks.json may accept its tokens for five more "
        "minutes, or until they fetch it again.",
        fg="yellow",
        err=True,
    )


def _refuse_key_of_the_file(kid: str) -> None:
    """Raise ClickException for a key in JWT_PRIVATE_KEY_FILE: it explains how to revoke it."""
    settings = services().settings
    path = settings.jwt_private_key_file
    if path is None:
        return
    keys = parse_keys(path, algorithm=settings.jwt_algorithm, variable="JWT_PRIVATE_KEY_FILE")
    if kid in {key.kid for key in keys}:
        raise click.ClickException(
            "JWT_PRIVATE_KEY_FILE holds this key. Remove it from that file; if it is the first one,"
            " put a new private key in its place. Running processes follow within two seconds of"
            " the change, or restart them where the file is mounted from a secret."
        )


def _show_successor(revocation: Revocation) -> None:
    active = revocation.signs_now
    if active is None:
        return
    click.secho(f"{active.kid} signs now.", fg="green")
    made = datetime.fromisoformat(active.created_at)
    if services().clock.now() - made < MAX_CACHE_AGE:
        _warn_of_cached_keys()


def _record(revocation: Revocation) -> None:
    """Record the revocation, which is already in effect, also without the database."""
    record, active = revocation.revoked, revocation.signs_now
    try:
        services().foundation.audit.record_alone(
            AuditAction.KEY_REVOKED,
            actor=operator(),
            target=("key", record.kid),
            details={"state": record.state, "signs_now": active.kid if active else None},
        )
    except SQLAlchemyError as exc:
        log.error("keys.revocation_not_audited", kid=record.kid, error=type(exc).__name__)
        click.secho(
            "The database does not respond: the revocation is not in the audit log.",
            fg="yellow",
            err=True,
        )


def _warn_of_cached_keys() -> None:
    click.secho(
        "It was created less than five minutes ago: services that cache "
        "/.well-known/jwks.json may reject its tokens until they fetch it again.",
        fg="yellow",
        err=True,
    )


@command.command("generate")
@safely
def generate() -> None:
    """Create the first keys: the active one and the next one."""
    made = _require_folder_signs().generate()
    if not made:
        click.echo(
            "An active key and a next key already exist. Run `flask keys rotate` to change them."
        )
    for record in made:
        click.secho(f"Created {record.kid} ({record.algorithm}, {record.state}).", fg="green")


def _purpose(record: KeyRecord, *, usable: bool, file_signs: bool) -> str:
    algorithm = services().settings.jwt_algorithm
    if record.algorithm != algorithm:
        return f"not used: JWT_ALGORITHM is {algorithm}"
    if not usable:
        return "no longer verifies"
    if record.state is KeyState.RETIRED:
        if record.verifies_until is None:
            return "verifies until its tokens have expired"
        return f"verifies until {_readable(record.verifies_until)}"
    if file_signs:
        return "verifies"
    return "signs now" if record.state is KeyState.ACTIVE else "published; signs after `rotate`"


def _readable(moment: str) -> str:
    return datetime.fromisoformat(moment).strftime("%Y-%m-%dT%H:%M:%SZ")
