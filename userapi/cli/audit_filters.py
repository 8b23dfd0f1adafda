"""The options of `flask audit list` and `export` that select rows."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import click

from userapi.accounts.errors import UserNotFound
from userapi.audit.actions import AuditAction, Outcome
from userapi.audit.reading import AuditFilter
from userapi.infrastructure.network_addresses import parse_address

from .support import services

_MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select rows to a command."""
    for option in (
        click.option("--until", type=_MOMENT, help="Only before this moment, in UTC."),
        click.option("--since", type=_MOMENT, help="Only from this moment on, in UTC."),
        click.option("--correlation-id", help="Only of this request."),
        click.option("--ip-address", help="Only from this address."),
        click.option("--outcome", type=click.Choice([str(o) for o in Outcome])),
        click.option(
            "--action", type=click.Choice([str(a) for a in AuditAction]), metavar="ACTION"
        ),
        click.option("--target", help="Only about this user (name or id), role or other id."),
        click.option("--actor", help="Only by this user: name, e-mail or id."),
    ):
        command = option(command)
    return command


def wanted_rows(
    *,
    actor: str | None,
    target: str | None,
    action: str | None,
    outcome: str | None,
    ip_address: str | None,
    correlation_id: str | None,
    since: datetime | None,
    until: datetime | None,
) -> AuditFilter:
    """Return the filter for the values of `filter_options`. Raises UserNotFound for an actor."""
    return AuditFilter(
        actor_id=None if actor is None else _actor_id(actor),
        target_id=None if target is None else _target_id(target),
        action=AuditAction(action) if action else None,
        outcome=Outcome(outcome) if outcome else None,
        ip_address=None if ip_address is None else parse_address(ip_address),
        correlation_id=correlation_id,
        since=since.replace(tzinfo=UTC) if since else None,
        until=until.replace(tzinfo=UTC) if until else None,
    )


def _actor_id(text: str) -> UUID:
    """Return the id of an actor. A deleted user can only be given by id."""
    try:
        return UUID(text)
    except ValueError:
        return services().directory.accounts.get_by_name(text).id


def _target_id(text: str) -> str:
    """Return the id of the user with that name, or the text itself, such as the name of a role."""
    try:
        return str(services().directory.accounts.get_by_name(text).id)
    except UserNotFound:
        return text
