"""flask mails: unsent mails, those that wait and those that the mail server has rejected."""

from dataclasses import asdict
from uuid import UUID

import click
from flask.cli import AppGroup

from userapi.mail.journal import MailJournal, MailState

from .support import as_json_option, print_json, print_table, safely, services

command = AppGroup("mails", help="List, retry and discard unsent mails.")


@command.command("list")
@click.option("--state", type=click.Choice([str(state) for state in MailState]))
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@as_json_option
@safely
def list_mails(state: str | None, limit: int, as_json: bool) -> None:
    """List mails that are not sent, the oldest first."""
    mails = _journal().unsent(state=MailState(state) if state else None, limit=limit)
    if as_json:
        print_json({"items": [asdict(mail) for mail in mails]})
        return
    print_table(
        ["ID", "KIND", "TO", "STATE", "SINCE (UTC)", "TRIES", "NEXT TRY", "ERROR"],
        [
            [
                mail.id,
                mail.kind,
                mail.recipient,
                mail.state,
                f"{mail.created_at:%Y-%m-%d %H:%M:%S}",
                mail.attempts,
                f"{mail.next_attempt_at:%H:%M:%S}" if mail.next_attempt_at else None,
                mail.last_error,
            ]
            for mail in mails
        ],
    )


@command.command("retry")
@click.argument("mail_id", metavar="[ID]", type=click.UUID, required=False)
@click.option("--parked", is_flag=True, help="All mails that the server has permanently rejected.")
@safely
def retry(mail_id: UUID | None, parked: bool) -> None:
    """Send mails now. Give an id for one, --parked for parked ones, neither for all that wait.

    The worker sends them within half a minute. A link is created when its mail is sent.
    """
    if mail_id is not None and parked:
        raise click.UsageError("Give an id or --parked, not both.")
    count = 1
    if mail_id is not None:
        _journal().retry(mail_id)
    elif parked:
        count = _journal().retry_parked()
    else:
        count = _journal().retry_waiting()
    click.secho(f"{count} mails will be sent now.", fg="green")


@command.command("discard")
@click.argument("mail_id", metavar="ID", type=click.UUID)
@safely
def discard(mail_id: UUID) -> None:
    """Delete a mail that is not sent."""
    _journal().discard(mail_id)
    click.secho("The mail is deleted.", fg="green")


def _journal() -> MailJournal:
    return MailJournal(services().clock)
