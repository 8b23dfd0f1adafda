"""flask events: what is in the outbox, and sending it again."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import click
from flask.cli import AppGroup

from userapi.events.catalogue import EventType
from userapi.events.journal import EventJournal, EventState, EventView

from .support import print_table, safely

command = AppGroup("events", help="Look into the outbox, and send events again.")

FOLLOW_SECONDS = 1.0


@command.command("list")
@click.option("--state", type=click.Choice([str(state) for state in EventState]))
@click.option("--type", "event_type", type=click.Choice([str(kind) for kind in EventType]))
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@safely
def list_events(state: str | None, event_type: str | None, limit: int) -> None:
    """List events, the newest first."""
    events = EventJournal().recent(
        state=EventState(state) if state else None, type=event_type, limit=limit
    )
    _print(events)


@command.command("replay")
@click.argument("ids", nargs=-1, type=click.UUID)
@click.option("--parked", is_flag=True, help="All events that were given up.")
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="All events since then, in UTC.",
)
@safely
def replay(ids: Sequence[UUID], parked: bool, since: datetime | None) -> None:
    """Mark events as not sent; the worker publishes them again under the same ids."""
    if sum([bool(ids), parked, since is not None]) != 1:
        raise click.UsageError("Name ids, or give --parked, or --since.")
    journal = EventJournal()
    if parked:
        count = journal.replay_parked()
    elif since is not None:
        count = journal.replay_since(since.replace(tzinfo=UTC))
    else:
        count = journal.replay(ids)
    click.secho(f"{count} events will be published again.", fg="green")


@command.command("tail")
@click.option("--lines", type=click.IntRange(0, 1000), default=10, show_default=True)
@click.option("--follow/--no-follow", default=True, help="Wait for more, until Ctrl-C.")
@safely
def tail(lines: int, follow: bool) -> None:
    """Show events as they come."""
    journal = EventJournal()
    events = list(reversed(journal.recent(limit=lines))) if lines else []
    last = max((event.sequence for event in journal.recent(limit=1)), default=0)
    while True:
        for event in events:
            click.echo(
                f"{event.occurred_at:%H:%M:%S}  {event.type:24} {event.subject}  {event.data}"
            )
        if not follow:
            return
        time.sleep(FOLLOW_SECONDS)
        events = list(journal.after(last))
        last = max((event.sequence for event in events), default=last)


def _print(events: Sequence[EventView]) -> None:
    print_table(
        ["NUMBER", "WHEN (UTC)", "TYPE", "SUBJECT", "STATE", "TRIES", "ID", "ERROR"],
        [
            [
                e.sequence,
                f"{e.occurred_at:%Y-%m-%d %H:%M:%S}",
                e.type,
                e.subject,
                e.state,
                e.attempts,
                e.id,
                e.last_error,
            ]
            for e in events
        ],
    )
