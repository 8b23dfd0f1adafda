"""flask events: the events of the outbox, and publishing them again."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from uuid import UUID

import click
from flask.cli import AppGroup

from userapi.characters import printable
from userapi.events.catalogue import EventType
from userapi.events.journal import LOOK_BACK, EventJournal, EventState, EventView

from .support import as_json_option, print_json, print_table, safely, services

command = AppGroup("events", help="List the events of the outbox, and publish them again.")

FOLLOW_SECONDS = 1.0


@command.command("list")
@click.option("--state", type=click.Choice([str(state) for state in EventState]))
@click.option("--type", "event_type", type=click.Choice([str(kind) for kind in EventType]))
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@as_json_option
@safely
def list_events(state: str | None, event_type: str | None, limit: int, as_json: bool) -> None:
    """List events, the newest first."""
    events = EventJournal().recent(
        state=EventState(state) if state else None, type=event_type, limit=limit
    )
    if as_json:
        items = [asdict(event) | {"data": _document(event)} for event in events]
        print_json({"items": items})
    else:
        _print(events)


@command.command("replay")
@click.argument("ids", nargs=-1, type=click.UUID)
@click.option("--parked", is_flag=True, help="All parked events.")
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    metavar="MOMENT",
    help="All events since then, such as 2026-03-01 or 2026-03-01T12:00:00, in UTC.",
)
@safely
def replay(ids: Sequence[UUID], parked: bool, since: datetime | None) -> None:
    """Send events again. The worker publishes them under the same ids as before."""
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
@click.option("--broker", is_flag=True, help="Events that RabbitMQ delivers from now on, as JSON.")
@safely
def tail(lines: int, follow: bool, broker: bool) -> None:
    """Show events as they are published."""
    try:
        for line in _from_broker() if broker else _from_outbox(lines, follow=follow):
            click.echo(printable(line))
    except KeyboardInterrupt:
        return


def _from_broker() -> Iterator[str]:
    settings = services().settings
    if not settings.rabbitmq_url:
        raise click.ClickException("RABBITMQ_URL is not set. Set it, or omit --broker.")
    # Loads Kombu, which no other command of this group needs.
    from .broker import delivered_events

    return delivered_events(settings.rabbitmq_url, exchange=settings.rabbitmq_exchange)


def _from_outbox(lines: int, *, follow: bool) -> Iterator[str]:
    journal = EventJournal()
    newest = max((event.sequence for event in journal.recent(limit=1)), default=0)
    seen = {event.sequence for event in journal.after(newest - LOOK_BACK)}
    events = list(reversed(journal.recent(limit=lines))) if lines else []
    while True:
        for event in events:
            yield f"{event.occurred_at:%H:%M:%S}  {event.type:24} {event.subject}  {event.data}"
        if not follow:
            return
        time.sleep(FOLLOW_SECONDS)
        # A number is assigned before its transaction commits: a smaller one may become visible
        # later.
        found = journal.after(newest - LOOK_BACK, limit=2 * LOOK_BACK)
        events = [event for event in found if event.sequence not in seen]
        seen = {event.sequence for event in found}
        newest = max([newest, *seen])


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


def _document(event: EventView) -> object:
    """Return the data of an event, or its text if it is not JSON."""
    try:
        return json.loads(event.data)
    except ValueError:
        return event.data
