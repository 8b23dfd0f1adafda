"""flask encryption: a new ENCRYPTION_KEY for secrets that a former one encrypts."""

import click
from flask.cli import AppGroup

from userapi.infrastructure.database import reading

from .support import Progress, safely, services

command = AppGroup("encryption", help="Encrypt stored secrets with the current key.")


@command.command("rotate")
@safely
def rotate() -> None:
    """Encrypt all secrets of authenticator apps with ENCRYPTION_KEY.

    A log-in does this with the secret that it uses. Repeating the command changes nothing.
    """
    rotation = services().secrets.totp_secret_rotation
    with reading() as connection:
        outdated = rotation.count_outdated(connection)
    with Progress("Encrypting", outdated) as progress:
        result = rotation.rotate(progress=progress.advance)
    click.secho(f"Encrypted {result.resealed} secrets with the current key.", fg="green")
    if result.unreadable:
        raise click.ClickException(
            f"{result.unreadable} secrets cannot be decrypted. Add their key to"
            " ENCRYPTION_KEY_PREVIOUS, or reset two-step sign-in of their users."
        )
