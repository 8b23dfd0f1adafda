"""flask sessions: list and end sessions, and delete expired rows."""

import sys
from dataclasses import asdict
from uuid import UUID

import click
from flask.cli import AppGroup

from userapi.sessions.service import EndReason

from .support import (
    INTERRUPTED,
    as_json_option,
    operator,
    print_json,
    print_table,
    safely,
    services,
    user_named,
)

command = AppGroup("sessions", help="List and end sessions.")


@command.command("list")
@click.argument("name", required=False)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@as_json_option
@safely
def list_sessions(name: str | None, limit: int, as_json: bool) -> None:
    """List live sessions, last used first. Give a name, e-mail or id for those of one user."""
    user_id = user_named(name).id if name else None
    found = services().sessions.sessions.list_live(user_id=user_id, limit=limit)
    names = services().search.user_search.names({owner for owner, _ in found})
    if as_json:
        items = []
        for owner, session in found:
            shown = asdict(session)
            del shown["current"]  # A command has no session.
            items.append({"user_id": owner, "username": names.get(owner), **shown})
        print_json({"items": items})
        return
    print_table(
        ["SESSION", "USER", "USER ID", "SINCE (UTC)", "LAST USED", "FROM", "DEVICE"],
        [
            [
                s.id,
                names.get(owner),
                owner,
                f"{s.created_at:%Y-%m-%d %H:%M}",
                f"{s.last_used_at:%Y-%m-%d %H:%M}",
                s.ip_address,
                s.device,
            ]
            for owner, s in found
        ],
    )


@command.command("revoke")
@click.argument("name", required=False)
@click.option("--session", "session_id", type=click.UUID, help="End only this session.")
@click.option("--all", "everybody", is_flag=True, help="The sessions of all users.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation of --all.")
@click.pass_context
@safely
def revoke(
    ctx: click.Context, name: str | None, session_id: UUID | None, everybody: bool, yes: bool
) -> None:
    """End the sessions of a user, one session, or all of every user.

    Browser sessions end as well. After an interruption, run --all again.
    """
    if everybody:
        if name is not None or session_id is not None:
            raise click.UsageError("Give --all by itself, without a user or --session.")
        ctx.exit(_revoke_all(yes=yes))
    revocation = services().accounts.session_revocation
    if name is not None:
        owner = user_named(name).id
    elif session_id is not None:
        owner = services().sessions.sessions.owner_of(session_id)
    else:
        raise click.UsageError("Name a user, or give --session or --all.")
    if session_id is not None:
        revocation.end_session(owner, session_id, actor=operator(), reason=EndReason.REVOKED)
        count = 1
    else:
        count = revocation.end_sessions(owner, actor=operator())
    username = services().directory.accounts.get(owner).username
    click.secho(f"{count} sessions of {username} have ended.", fg="green")


def _revoke_all(*, yes: bool) -> int:
    """End every session; return the exit code."""
    count = services().sessions.sessions.count_live()
    if not yes:
        click.confirm(f"End all {count} sessions? All users have to sign in again.", abort=True)
    ended = 0
    # The bar goes to standard error: standard output is for the result.
    with click.progressbar(
        length=max(count, 1), label="Ending sessions", file=sys.stderr, show_pos=True
    ) as bar:

        def advance(batch: int) -> None:
            nonlocal ended
            ended += batch
            bar.update(batch)

        try:
            services().accounts.log_out_everyone.end_all(actor=operator(), progress=advance)
        except KeyboardInterrupt:
            click.secho(
                f"\nInterrupted: {ended} sessions have ended. Run the command again for the rest.",
                fg="yellow",
                err=True,
            )
            return INTERRUPTED
    click.secho(f"{ended} sessions have ended.", fg="green")
    return 0


@command.command("purge")
@safely
def purge() -> None:
    """Delete expired sessions, tokens and keys, and sent events and mails."""
    cleaner, total = services().operations.clean_up, 0
    while deleted := cleaner.delete_due():
        total += deleted
    click.secho(f"{total} rows deleted.", fg="green")
