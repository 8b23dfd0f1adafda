"""Rows that a use case leaves in the database and that HTTP does not show."""

from collections.abc import Sequence
from typing import Any

from flask import Flask
from sqlalchemy import Row, select

from userapi.audit.models import AuditLog
from userapi.events.models import OutboxEvent
from userapi.infrastructure.database import (
    reading,
    table_of,
)
from userapi.mail.models import OutgoingMail


def audit_rows(app: Flask, *, action: str | None = None) -> Sequence[Row[Any]]:
    """Return the audit rows, the oldest first."""
    table = table_of(AuditLog)
    query = select(table).order_by(table.c.id)
    if action is not None:
        query = query.where(table.c.action == action)
    return _rows(app, query)


def events(app: Flask, *, type_: str | None = None) -> Sequence[Row[Any]]:
    """Return the events of the outbox, in their order."""
    table = table_of(OutboxEvent)
    query = select(table).order_by(table.c.sequence)
    if type_ is not None:
        query = query.where(table.c.type == type_)
    return _rows(app, query)


def mails(app: Flask) -> Sequence[Row[Any]]:
    """Return the queued mails, the oldest first."""
    table = table_of(OutgoingMail)
    return _rows(app, select(table).order_by(table.c.id))


def _rows(app: Flask, query: Any) -> Sequence[Row[Any]]:
    with app.app_context(), reading() as connection:
        return connection.execute(query).all()
