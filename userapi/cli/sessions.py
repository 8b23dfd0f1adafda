"""flask sessions: who is signed in, ending it, and clearing away what has ended."""

from uuid import UUID

import click
from flask.cli import AppGroup

from userapi.sessions.service import EndReason

from .support import operator, print_table, safely, services

command = AppGroup("sessions", help="List and end sessions.")


@command.command("list")
@click.argument("name", required=False)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@safely
def list_sessions(name: str | None, limit: int) -> None:
    """List live sessions. Those of one user or of all, the one used last first."""
    user_id = services().accounts.get_by_name(name).id if name else None
    print_table(
        ["SESSION", "USER", "SINCE (UTC)", "LAST USED", "FROM", "DEVICE"],
        [
            [
                s.id,
                owner,
                f"{s.created_at:%Y-%m-%d %H:%M}",
                f"{s.last_used_at:%Y-%m-%d %H:%M}",
                s.ip_address,
                s.device,
            ]
            for owner, s in services().sessions.list_live(user_id=user_id, limit=limit)
        ],
    )


@command.command("revoke")
@click.argument("name", required=False)
@click.option("--session", "session_id", type=click.UUID, help="Only this one.")
@safely
def revoke(name: str | None, session_id: UUID | None) -> None:
    """End the sessions of a user, or one session by its id alone."""
    accounts = services().accounts
    if name is not None:
        owner = accounts.get_by_name(name).id
    elif session_id is not None:
        owner = services().sessions.owner_of(session_id)
    else:
        raise click.UsageError("Name a user, or give --session.")
    if session_id is not None:
        accounts.end_session(owner, session_id, actor=operator(), reason=EndReason.REVOKED)
        count = 1
    else:
        count = accounts.end_sessions(owner, actor=operator())
    click.secho(f"{count} sessions of {accounts.get(owner).username} have ended.", fg="green")


@command.command("purge")
@safely
def purge() -> None:
    """Delete what has expired. Sessions, tokens, keys, sent events and mails."""
    cleaner, total = services().clean_up, 0
    while deleted := cleaner.delete_due():
        total += deleted
    click.secho(f"{total} rows deleted.", fg="green")
