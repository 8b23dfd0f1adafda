"""flask sessions: who is signed in, ending it, and clearing away what has ended."""

from uuid import UUID

import click
from flask.cli import AppGroup

from userapi.cleanup import CleanUp
from userapi.sessions.service import EndReason

from .support import operator, print_table, safely, services

command = AppGroup("sessions", help="List and end sessions.")


@command.command("list")
@click.argument("name")
@safely
def list_sessions(name: str) -> None:
    """List the live sessions of a user."""
    user = services().accounts.get_by_name(name)
    print_table(
        ["SESSION", "SINCE (UTC)", "LAST USED", "FROM", "DEVICE"],
        [
            [
                s.id,
                f"{s.created_at:%Y-%m-%d %H:%M}",
                f"{s.last_used_at:%Y-%m-%d %H:%M}",
                s.ip_address,
                s.device,
            ]
            for s in services().sessions.list_of(user.id)
        ],
    )


@command.command("revoke")
@click.argument("name")
@click.option("--session", "session_id", type=click.UUID, help="Only this one.")
@safely
def revoke(name: str, session_id: UUID | None) -> None:
    """End the sessions of a user."""
    user = services().accounts.get_by_name(name)
    if session_id is not None:
        services().accounts.end_session(
            user.id, session_id, actor=operator(), reason=EndReason.REVOKED
        )
        count = 1
    else:
        count = services().accounts.end_sessions(user.id, actor=operator())
    click.secho(f"{count} sessions of {user.username} have ended.", fg="green")


@command.command("purge")
@safely
def purge() -> None:
    """Delete what has expired: old sessions, tokens, keys, sent events and mails."""
    cleaner, total = CleanUp(services().clock), 0
    while deleted := cleaner.delete_due():
        total += deleted
    click.secho(f"{total} rows deleted.", fg="green")
