"""Does the cost of a question grow with the table? `python -m benchmarks.scale [--users N]`

Fills a private PostgreSQL by COPY, once with 1000 users and once with a million, each with three
rows of the audit log; asks the services the same questions in both; prints p50 and p95, how many
times slower the large one is, and every sequential scan of a large table in the plans.
"""

import argparse
import io
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import psycopg2
from faker import Faker
from flask import Flask
from psycopg2.extensions import connection as Connection
from sqlalchemy import event

from tests.support.deployments import ENVIRONMENT, build_app, disconnect, migrate_with
from tests.support.servers import PostgresServer, new_run_directory
from userapi.accounts.models import UserStatus, searchable
from userapi.accounts.search import UserFilter
from userapi.actor import system_actor
from userapi.audit.actions import AuditAction, Outcome
from userapi.audit.reading import AuditFilter
from userapi.clock import SystemClock
from userapi.infrastructure.database import db
from userapi.infrastructure.export import ExportFormat
from userapi.infrastructure.pagination import PageRequest
from userapi.infrastructure.user_counts import rebuild_user_counts
from userapi.statistics import Statistics
from userapi.wiring.services import Services

SMALL = 1000
AUDIT_ROWS_A_USER = 3
CHUNK = 20_000
ROUNDS = 40
LARGE_TABLES = ("users", "user_roles", "audit_logs")
OLDEST = timedelta(days=720)

USER_COLUMNS = (
    "id,username,email,email_normalized,email_verified,must_change_password,first_name,last_name,"
    "status,locked_until,attributes,search_text,version,access_version,created_at,updated_at,"
    "last_login_at"
)
AUDIT_COLUMNS = (
    "id,occurred_at,action,outcome,actor_id,actor_username,actor_type,target_type,target_id,"
    "ip_address,correlation_id"
)

Question = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How long a question took, and what its plans scan."""

    p50_ms: float
    p95_ms: float
    scans: tuple[str, ...]


class People:
    """Makes up users of different ages, in the order in which they came."""

    def __init__(self, count: int, now: datetime) -> None:
        self.count = count
        self._now = now
        self._chance = random.Random(7)
        faker = Faker(["en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "ja_JP"])
        faker.seed_instance(7)
        self._first = [faker.first_name() for _ in range(1200)]
        self._last = [faker.last_name() for _ in range(3000)]

    def rows(self) -> Iterator[tuple[str, str, list[str]]]:
        """Return for each user a line of users, one of user_roles and those of audit_logs."""
        chance = self._chance
        for number in range(self.count):
            created = self._now - OLDEST * (1 - number / self.count) - timedelta(minutes=5)
            first, last = chance.choice(self._first), chance.choice(self._last)
            username = (
                f"{chance.choice('abcdefghijklmnoprstuvw')}{number:07d}{chance.choice('xyz')}"
            )
            email = f"{username}@example.com"
            active = chance.random()
            status = "active" if active < 0.92 else "pending" if active < 0.97 else "suspended"
            login = (
                created + (self._now - created) * chance.random()
                if chance.random() < 0.75
                else None
            )
            locked = self._now + timedelta(hours=9) if chance.random() < 0.0005 else None
            user_id = self._id(created)
            draw = chance.random()
            role = "admin" if draw < 0.002 else "moderator" if draw < 0.02 else "user"
            user = (
                f"{user_id}\t{username}\t{email}\t{email}\tt\tf\t{first}\t{last}\t{status}\t"
                f"{_cell(locked)}\t{{}}\t{_escaped(searchable(username, email, first, last))}\t"
                f"1\t1\t{created}\t{created}\t{_cell(login)}\n"
            )
            audit = [
                self._audit(user_id, username, created + timedelta(seconds=step * 60))
                for step in range(AUDIT_ROWS_A_USER)
            ]
            yield user, f"{user_id}\t{role}\t{status}\n", audit

    def _audit(self, user_id: UUID, username: str, moment: datetime) -> str:
        chance = self._chance
        draw = chance.random()
        action = "auth.login" if draw < 0.7 else "user.updated" if draw < 0.97 else "user.suspended"
        outcome = "failure" if action == "auth.login" and chance.random() < 0.1 else "success"
        address = f"10.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(256)}"
        return (
            f"{self._id(moment)}\t{moment}\t{action}\t{outcome}\t{user_id}\t{username}\tuser\t"
            f"user\t{user_id}\t{address}\tbench-{chance.getrandbits(64):016x}\n"
        )

    def _id(self, moment: datetime) -> UUID:
        milliseconds = int(moment.timestamp() * 1000)
        value = milliseconds << 80 | 7 << 76 | self._chance.getrandbits(12) << 64
        return UUID(int=value | 2 << 62 | self._chance.getrandbits(62))


def fill(url: str, count: int) -> None:
    """Load the tables without their indexes, then make the indexes again."""
    with psycopg2.connect(url) as connection:
        cursor = connection.cursor()
        # Neither foreign keys nor triggers: this is not the service's own work.
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
            " AND tablename = ANY(%s) AND indexname LIKE 'ix\\_%%'",
            (list(LARGE_TABLES),),
        )
        indexes = cursor.fetchall()
        for name, _ in indexes:
            cursor.execute(f"DROP INDEX {name}")
        people = People(count, datetime.now(UTC)).rows()
        done = 0
        while batch := list(islice(people, CHUNK)):
            _copy(connection, f"users ({USER_COLUMNS})", [user for user, _, _ in batch])
            _copy(
                connection,
                "user_roles (user_id,role_name,user_status)",
                [role for _, role, _ in batch],
            )
            rows = [row for _, _, audit in batch for row in audit]
            _copy(connection, f"audit_logs ({AUDIT_COLUMNS})", rows)
            done += len(batch)
            print(f"\r  {done} users", end="", file=sys.stderr, flush=True)
        print("\r  indexes          ", end="", file=sys.stderr, flush=True)
        cursor.execute("SET maintenance_work_mem = '512MB'")
        for _, definition in indexes:
            cursor.execute(definition)
    print("\r                   \r", end="", file=sys.stderr, flush=True)
    connection.close()
    connection = psycopg2.connect(url)
    connection.autocommit = True
    connection.cursor().execute("VACUUM ANALYZE")
    connection.close()


def _copy(connection: Connection, target: str, lines: Sequence[str]) -> None:
    with connection.cursor() as cursor:
        cursor.copy_expert(f"COPY {target} FROM STDIN", io.StringIO("".join(lines)))


def _cell(value: object | None) -> str:
    return "\\N" if value is None else str(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def questions(services: Services, count: int) -> dict[str, Question]:
    """Return what is asked, by name."""
    now = services.clock.now()
    actor = system_actor("benchmark")
    some = services.user_search.page(UserFilter(), PageRequest(page=3)).items[5]
    day = timedelta(days=1)

    def users(wanted: UserFilter | None = None, **page: Any) -> Question:
        return lambda: services.user_search.page(wanted or UserFilter(), PageRequest(**page))

    def audit(**wanted: Any) -> Question:
        return lambda: services.audit_reader.page(AuditFilter(**wanted), PageRequest(), actor=actor)

    deep = _cursor_at(services, min(5000 * 20, count - 100))
    deep_null = _cursor_at(services, min(5000 * 20, count - 100), sort="-last_login_at")
    return {
        "list": users(),
        "list, page 500": users(page=min(500, count // 20)),
        "list, cursor page 5000": users(cursor=deep),
        "list by -last_login_at": users(sort="-last_login_at"),
        "  cursor page 5000": users(sort="-last_login_at", cursor=deep_null),
        "list by last_login_at": users(sort="last_login_at"),
        "list by username": users(sort="username"),
        "list by -email": users(sort="-email"),
        "list by status": users(sort="status"),
        "list by -status,username": users(sort="-status,username"),
        "list by -updated_at,email": users(sort="-updated_at,email"),
        "status=suspended": users(UserFilter(status=UserStatus.SUSPENDED)),
        "role=user": users(UserFilter(role="user")),
        "role=moderator": users(UserFilter(role="moderator")),
        "role=superadmin (nobody)": users(UserFilter(role="superadmin")),
        "email=": users(UserFilter(email=some.email)),
        "created in a week": users(
            UserFilter(created_after=now - 200 * day, created_before=now - 193 * day)
        ),
        "last_login_after yesterday": users(UserFilter(last_login_after=now - day)),
        "last_login_before 700 days": users(UserFilter(last_login_before=now - 700 * day)),
        "locked=true": users(UserFilter(locked=True)),
        "locked=false": users(UserFilter(locked=False)),
        "suspended moderators": users(
            UserFilter(status=UserStatus.SUSPENDED, role="moderator", locked=False)
        ),
        "search a user name": users(UserFilter(search=some.username)),
        "search a full name": users(UserFilter(search=some.last_name)),
        "search 'exam' (everybody)": users(UserFilter(search="exam")),
        "search 'qqq' (nobody)": users(UserFilter(search="qqq")),
        "search 'an' (many)": users(UserFilter(search="an")),
        "search 'qx' (nobody)": users(UserFilter(search="qx")),
        "search '9' (many)": users(UserFilter(search="9")),
        "search and status": users(UserFilter(search=some.last_name, status=UserStatus.PENDING)),
        "audit": audit(),
        "audit of an actor": audit(actor_id=some.id),
        "audit about a user": audit(target_id=str(some.id)),
        "audit action": audit(action=AuditAction.USER_SUSPENDED),
        "audit failures": audit(outcome=Outcome.FAILURE),
        "audit action in a week": audit(
            action=AuditAction.AUTH_LOGIN, since=now - 200 * day, until=now - 193 * day
        ),
        # What was dear to count is kept for a while, so most callers see the first of these.
        "statistics": services.statistics.figures,
        "statistics, counted anew": lambda: Statistics(
            clock=services.clock, sessions=services.sessions, mfa=services.mfa_figures
        ).figures(),
    }


def _cursor_at(services: Services, row: int, sort: str | None = None) -> str | None:
    cursor = None
    for _ in range(row // 100):
        page = PageRequest(page_size=100, cursor=cursor, sort=sort)
        cursor = services.user_search.page(UserFilter(), page).next_cursor
    return cursor


def measure(app: Flask, url: str, question: Question) -> Measured:
    """Ask a question often, then look at the plans of its statements."""
    statements: dict[str, Any] = {}

    def collect(_c: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if statement.lstrip().upper().startswith(("SELECT", "WITH", "SET LOCAL")):
            statements[statement] = parameters

    event.listen(db.engine, "before_cursor_execute", collect)
    question()
    event.remove(db.engine, "before_cursor_execute", collect)
    seconds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        question()
        seconds.append(time.perf_counter() - begun)
    scans = []
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        for statement, parameters in statements.items():
            if statement.startswith("SET LOCAL"):  # Under which what follows is planned.
                cursor.execute(statement)
                continue
            cursor.execute(f"EXPLAIN {statement}", parameters)
            plan = [str(line) for (line,) in cursor.fetchall()]
            scans += [f"{t}" for t in LARGE_TABLES for x in plan if f"Seq Scan on {t}" in x]
    connection.close()
    return Measured(
        p50_ms=statistics.median(seconds) * 1000,
        p95_ms=statistics.quantiles(seconds, n=20)[-1] * 1000,
        scans=tuple(sorted(set(scans))),
    )


def export_growth_kib(services: Services, wanted: UserFilter) -> tuple[int, float]:
    """Return how much the process grew during an export, and the seconds that it lasted."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    pieces = services.user_exports.pieces(
        wanted, ExportFormat.NDJSON, actor=system_actor("benchmark")
    )
    for _ in pieces:
        pass
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return growth, time.perf_counter() - begun


def run(server: PostgresServer, directory: Path, count: int) -> dict[str, Measured]:
    """Fill a database of its own and measure every question in it."""
    name = f"scale_{count}"
    connection = psycopg2.connect(server.url)
    connection.autocommit = True
    connection.cursor().execute(f"CREATE DATABASE {name}")
    connection.close()
    url = urlunsplit(urlsplit(server.url)._replace(path=f"/{name}"))
    migrate_with(directory)(url)
    begun = time.perf_counter()
    fill(url, count)
    print(f"{count} users: filled in {time.perf_counter() - begun:.0f} s", file=sys.stderr)
    environment = {**ENVIRONMENT, "DATABASE_URL": url}
    app = build_app(environment, clock=SystemClock(), instance_dir=directory)
    services: Services = app.extensions["userapi"]
    with app.app_context():
        rebuild_user_counts()
        measured = {
            asked: measure(app, url, question)
            for asked, question in questions(services, count).items()
        }
        growth, seconds = export_growth_kib(services, UserFilter())
        print(f"{count} users: exported in {seconds:.0f} s, {growth} KiB more", file=sys.stderr)
    disconnect(app)
    return measured


def main() -> int:
    """Measure both and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("--users", type=int, default=1_000_000)
    count = parser.parse_args().users
    directory = new_run_directory()
    with PostgresServer(directory) as server:
        small = run(server, directory, SMALL)
        large = run(server, directory, count)
    head = f"{SMALL} users"
    print(f"{'':30} {head:>17} {f'{count} users':>17}")
    print(f"{'':30} {'p50':>8} {'p95':>8} {'p50':>8} {'p95':>8}  times  sequential scans")
    for asked, few in small.items():
        many = large[asked]
        print(
            f"{asked:30} {few.p50_ms:8.2f} {few.p95_ms:8.2f} {many.p50_ms:8.2f} {many.p95_ms:8.2f}"
            f" {many.p50_ms / few.p50_ms:6.1f}  {', '.join(many.scans)}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
