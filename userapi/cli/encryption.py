"""flask encryption: a new ENCRYPTION_KEY for secrets that a former one encrypts."""

import click
from flask.cli import AppGroup

from userapi.infrastructure.database import reading

from .support import Progress, safely, services

command = AppGroup("encryption", help="Encrypt stored secrets with the current key.")


@command.command("rotate")
@safely
def rotate() -> None:
    """Encrypt all stored secrets with ENCRYPTION_KEY.

    These are the secrets of authenticator apps, each of which a log-in encrypts as well when it
    uses it, and the rows of waiting imports. Repeating the command changes nothing.
    """
    known = services().secrets
    secrets, batches = known.totp_secret_rotation, known.import_batch_rotation
    with reading() as connection:
        outdated = secrets.count_outdated(connection) + batches.count_outdated(connection)
    with Progress("Encrypting", outdated) as progress:
        of_apps = secrets.rotate(progress=progress.advance)
        of_imports = batches.rotate(progress=progress.advance)
    click.secho(f"Encrypted {of_apps.resealed} secrets with the current key.", fg="green")
    if of_imports.resealed:
        click.secho(f"Encrypted {of_imports.resealed} batches of waiting imports.", fg="green")
    if of_apps.unreadable:
        click.echo(
            f"{of_apps.unreadable} secrets cannot be decrypted. Add their key to"
            " ENCRYPTION_KEY_PREVIOUS, or reset two-step sign-in of their users.",
            err=True,
        )
    if of_imports.unreadable:
        click.echo(
            f"{of_imports.unreadable} batches of waiting imports cannot be decrypted. Add their key"
            " to ENCRYPTION_KEY_PREVIOUS, or upload these files again.",
            err=True,
        )
    if of_apps.unreadable or of_imports.unreadable:
        raise SystemExit(1)
