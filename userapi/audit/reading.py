"""Reading the audit trail. That it was read is recorded, too."""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import chain
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    literal,
    or_,
    select,
    tuple_,
)

from userapi.actor import Actor, ActorType
from userapi.audit.actions import AuditAction, Outcome
from userapi.audit.models import AuditLog
from userapi.audit.service import AuditTrail
from userapi.infrastructure.database import reading, table_of
from userapi.infrastructure.export import ExportFormat, export_pieces
from userapi.infrastructure.network_addresses import former_spellings
from userapi.infrastructure.pagination import Page, PageRequest, Paginator, SortKey
from userapi.permissions import Permission

ROWS_PER_CHUNK = 1000

_table = table_of(AuditLog)
_COLUMNS = _table.c.keys()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """The filters of a request; None does not filter. `ip_address` is canonical.

    `about` is a user or service account that acted or was acted on. `session_id` needs `actor_id`,
    whose rows are searched. `without_reads_of` hides that this user has read the log.
    """

    actor_id: UUID | None = None
    actor_type: ActorType | None = None
    key_id: UUID | None = None
    target_id: str | None = None
    action: AuditAction | None = None
    outcome: Outcome | None = None
    ip_address: str | None = None
    correlation_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    about: UUID | None = None
    session_id: UUID | None = None
    without_reads_of: UUID | None = None


class AuditReader:
    """Reads the trail, and records that it was read."""

    def __init__(self, *, trail: AuditTrail, cursor_key: str) -> None:
        self._trail = trail
        self._paginator = Paginator(
            secret=cursor_key,
            name="audit",
            keys={"occurred_at": SortKey(_table.c.occurred_at)},
            default_sort="-occurred_at",
            tie_breaker=_table.c.id,
        )

    def page(self, wanted: AuditFilter, page: PageRequest, *, actor: Actor) -> Page[Row[Any]]:
        """Return a page of the matching rows, newest first. Raises as `Paginator.page` does."""
        with reading() as connection:
            spellings = _spellings(connection, wanted)
            query = _matching(replace(wanted, ip_address=None) if spellings else wanted)
            found = self._paginator.page(
                connection,
                query,
                page,
                filters=asdict(wanted),
                item=lambda row: row,
                either=_either(wanted, spellings),
                one_range=wanted == AuditFilter(without_reads_of=wanted.without_reads_of),
            )
        self._record_reading(wanted, actor)
        return found

    def all_about(self, user_id: UUID, *, actor: Actor) -> Iterator[Mapping[str, Any]]:
        """Return every row about a user, oldest first, for an export by the user.

        Memory does not grow with their number. The first chunk is read before this returns, so
        that an unavailable database raises here and not in the iterator.
        """
        by_user, about_user = _involves(user_id)
        by_others = and_(about_user, _table.c.actor_id.is_distinct_from(user_id))
        # Two scans, each by its own index: one with OR would sort all rows for each chunk.
        scans = []
        for query in (select(_table).where(by_user), select(_table).where(by_others)):
            first = _read_chunk(_oldest_first(query))
            scans.append(chain.from_iterable(_chunks(first, query, descending=False)))
        self._trail.record_alone(AuditAction.USER_EXPORTED, actor=actor, target=("user", user_id))
        rows = heapq.merge(*scans, key=lambda row: (row.occurred_at, row.id))
        return map(_item_for(user_id, actor), rows)

    def export(self, wanted: AuditFilter, form: ExportFormat, *, actor: Actor) -> Iterator[bytes]:
        """Return all matching rows as a file in pieces, newest first.

        Memory does not grow with their number. The access is recorded and the first chunk is read
        before this returns, so that most errors are raised here and not in the iterator.
        """
        self._record_reading(wanted, actor, export=str(form))
        with reading() as connection:
            spellings = _spellings(connection, wanted)
        query = _matching(replace(wanted, ip_address=None) if spellings else wanted)
        conditions = _either(wanted, spellings)
        if conditions:
            query = query.where(or_(*conditions))
        chunks = _chunks(_read_chunk(_newest_first(query)), query, descending=True)
        return export_pieces(
            ([_fields(row) for row in chunk] for chunk in chunks), columns=_COLUMNS, form=form
        )

    def activity(
        self, user_id: UUID, page: PageRequest, *, actor: Actor, target_type: str = "user"
    ) -> Page[Mapping[str, Any]]:
        """Return a page of the rows with the user as actor or target, newest first.

        Or with a service account, by `target_type`. Reading the activity of another actor is
        recorded. Users see only the names of other actors, not their addresses, devices, sessions
        and keys.
        """
        with reading() as connection:
            found = self._paginator.page(
                connection,
                select(_table),
                page,
                filters={"activity": user_id},
                item=_item_for(user_id, actor),
                either=_involves(user_id, target_type),
            )
        if not actor.is_user(user_id):
            # Without a target, because each access would add a row to the activity itself.
            self._trail.record_alone(
                AuditAction.AUDIT_READ, actor=actor, details={"activity_of": str(user_id)}
            )
        return found

    def _record_reading(self, wanted: AuditFilter, actor: Actor, **more: str) -> None:
        filters = {n: str(value) for n, value in asdict(wanted).items() if value is not None}
        self._trail.record_alone(AuditAction.AUDIT_READ, actor=actor, details=filters | more)


def _matching(wanted: AuditFilter) -> Select[Any]:
    """Return the query for the rows that match the filters, without an order."""
    query: Select[Any] = select(_table)
    for column, value in (
        (_table.c.actor_id, wanted.actor_id),
        (_table.c.actor_type, wanted.actor_type),
        (_table.c.key_id, wanted.key_id),
        (_table.c.target_id, wanted.target_id),
        (_table.c.action, wanted.action),
        (_table.c.outcome, wanted.outcome),
        (_table.c.ip_address, wanted.ip_address),
        (_table.c.correlation_id, wanted.correlation_id),
        (_table.c.session_id, wanted.session_id),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.since is not None:
        query = query.where(_table.c.occurred_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(_table.c.occurred_at < wanted.until)
    if wanted.without_reads_of is not None:
        by_others = _table.c.actor_id.is_distinct_from(wanted.without_reads_of)
        query = query.where(or_(_table.c.action != AuditAction.AUDIT_READ, by_others))
    return query


def _either(wanted: AuditFilter, spellings: Sequence[str]) -> list[ColumnElement[bool]]:
    """Return conditions of which a row must fulfil one, each searched by its own index."""
    addresses = [_table.c.ip_address == spelling for spelling in spellings]
    if wanted.about is None:
        return addresses
    involved = [_table.c.actor_id == wanted.about, _table.c.target_id == str(wanted.about)]
    if not addresses:
        return involved
    return [and_(one, address) for one in involved for address in addresses]


def _spellings(connection: Connection, wanted: AuditFilter) -> list[str]:
    """Return every spelling of the address, if rows have another one than the canonical.

    Rows are never changed, so those of earlier releases keep their spelling.
    """
    former = former_spellings(wanted.ip_address) if wanted.ip_address else ()
    query = select(literal(1)).where(_table.c.ip_address.in_(former)).limit(1)
    if not former or wanted.ip_address is None or connection.execute(query).first() is None:
        return []
    return [wanted.ip_address, *former]


def _involves(
    actor_id: UUID, target_type: str = "user"
) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the conditions for a user or service account as the actor, and as the target."""
    return (
        _table.c.actor_id == actor_id,
        and_(_table.c.target_type == target_type, _table.c.target_id == str(actor_id)),
    )


def _newest_first(query: Select[Any]) -> Select[Any]:
    return query.order_by(_table.c.occurred_at.desc(), _table.c.id.desc())


def _oldest_first(query: Select[Any]) -> Select[Any]:
    return query.order_by(_table.c.occurred_at, _table.c.id)


def _chunks(
    first: Sequence[Row[Any]], query: Select[Any], *, descending: bool
) -> Iterator[Sequence[Row[Any]]]:
    """Yield chunk after chunk by keyset. No connection is held while one is sent."""
    key = tuple_(_table.c.occurred_at, _table.c.id)
    chunk = first
    while chunk:
        yield chunk
        if len(chunk) < ROWS_PER_CHUNK:
            return
        last = tuple_(
            literal(chunk[-1].occurred_at, _table.c.occurred_at.type),
            literal(chunk[-1].id, _table.c.id.type),
        )
        following = (
            _newest_first(query.where(key < last))
            if descending
            else _oldest_first(query.where(key > last))
        )
        chunk = _read_chunk(following)


def _read_chunk(query: Select[Any]) -> Sequence[Row[Any]]:
    with reading() as connection:
        return connection.execute(query.limit(ROWS_PER_CHUNK)).all()


def _fields(row: Row[Any]) -> dict[str, Any]:
    """Return the columns of the table in a row, which may have more."""
    return dict(zip(_COLUMNS, row, strict=False))


def _item_for(user_id: UUID, reader: Actor) -> Callable[[Row[Any]], Mapping[str, Any]]:
    """Return a function that removes from a row of activity what the reader must not see."""
    sees_all = Permission.AUDIT_READ in reader.permissions

    def item(row: Row[Any]) -> Mapping[str, Any]:
        shown = _fields(row)
        if not sees_all and row.actor_type != ActorType.ANONYMOUS and row.actor_id != user_id:
            shown |= {"ip_address": None, "user_agent": None, "session_id": None, "key_id": None}
        return shown

    return item
