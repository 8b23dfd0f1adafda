"""Verifying and pruning large audit logs: how much is read, how often, and concurrently."""

import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import event, text

from tests.support.databases import patient_transaction
from tests.support.polling import wait_until
from userapi.actor import system_actor
from userapi.audit.findings import Finding
from userapi.clock import ManualClock
from userapi.infrastructure.database import db, transaction
from userapi.wiring.services import Services

# Ids that grow with the moments, as those of the service do.
ROWS = """
    INSERT INTO audit_logs (id, occurred_at, action, outcome, actor_type)
    SELECT (lpad(to_hex(n), 12, '0') || '70008000000000000000')::uuid,
        now() - interval '400 days' + n * interval '1 second', 'user.updated', 'success', 'system'
    FROM generate_series(CAST(:first AS int), CAST(:last AS int)) n
    """


@pytest.fixture(autouse=True)
def context(app: Flask) -> Iterator[None]:
    with app.app_context():
        yield


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the batches, so that fewer rows are enough for several."""
    monkeypatch.setattr("userapi.audit.seal_reading.SEALS_PER_READ", 3)


def add_rows(services: Services, first: int, last: int, *, seal: bool = True) -> None:
    for start in range(first, last + 1, 4000):
        with patient_transaction() as session:
            end = min(start + 3999, last)
            session.execute(text(ROWS), {"first": start, "last": end})
    while seal and services.audit_seals.seal_due():
        pass


def flask(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(args=["audit", *arguments])


def verify(services: Services) -> None:
    services.audit_verification.verify(lambda finding: pytest.fail(str(finding)))


@contextmanager
def reads_of_rows() -> Iterator[list[int]]:
    """Yield the number of rows that each statement reads from the log."""
    reads: list[int] = []

    def note(_c: Any, cursor: Any, statement: str, *_more: Any) -> None:
        if statement.startswith("SELECT") and "FROM audit_logs" in statement:
            reads.append(cursor.rowcount)

    event.listen(db.engine, "after_cursor_execute", note)
    yield reads
    event.remove(db.engine, "after_cursor_execute", note)


@pytest.mark.thorough
def test_each_row_is_read_once(services: Services) -> None:
    """All ids were read again for each million rows."""
    add_rows(services, 1, 12_000)

    with reads_of_rows() as reads:
        verify(services)

    assert 12_000 <= sum(reads) < 13_000
    assert max(reads) <= 2000


@pytest.mark.thorough
def test_memory_does_not_grow_with_the_log(services: Services) -> None:
    peaks = []
    for first, last in ((1, 4_000), (4_001, 16_000)):
        add_rows(services, first, last)
        tracemalloc.start()
        verify(services)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.thorough
def test_no_snapshot_is_held_from_the_first_row_to_the_last(services: Services) -> None:
    """A snapshot that is held for hours prevents vacuuming of the whole database."""
    add_rows(services, 1, 12_000)
    horizons = set()

    def note(_rows: int) -> None:
        with transaction() as session:
            session.execute(text("UPDATE role_catalogue SET version = version"))
        with db.engine.connect() as connection:
            query = (
                "SELECT min(backend_xmin::text::bigint) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND backend_type = 'client backend'"  # Autovacuum has a snapshot for a moment.
            )
            horizons.add(connection.execute(text(query)).scalar())

    services.audit_verification.verify(lambda finding: pytest.fail(str(finding)), progress=note)

    assert horizons == {None}


@pytest.mark.thorough
def test_rows_added_sealed_and_pruned_concurrently_are_no_finding(
    app: Flask, services: Services, clock: ManualClock
) -> None:
    add_rows(services, 1, 12_000)
    add_rows(services, 12_001, 12_500, seal=False)
    findings: list[Finding] = []
    steps: Iterator[Callable[[], object]] = iter(
        [
            lambda: add_rows(services, 12_501, 13_000, seal=False),
            lambda: add_rows(services, 13_001, 13_100),
            lambda: prune(services, clock, days=400 - 0.1),
            lambda: add_rows(services, 13_101, 13_200, seal=False),
        ]
    )

    def meanwhile(_rows: int) -> None:
        step = next(steps, None)
        if step is not None:
            step()

    verified = services.audit_verification.verify(findings.append, progress=meanwhile)

    assert next(steps, None) is None
    assert findings == []
    assert verified.waiting == 100 + 5  # Each batch of pruning is recorded.
    verify(services)


def prune(services: Services, clock: ManualClock, *, days: float) -> int:
    before = clock.now() - timedelta(days=days)
    return services.audit_pruning.prune(before, actor=system_actor("tests")).rows


@pytest.mark.thorough
def test_pruning_reads_only_what_it_deletes_despite_the_statistics(
    services: Services, clock: ManualClock
) -> None:
    """With statistics of an empty log each batch read the whole log."""
    with db.engine.begin() as connection:
        connection.exec_driver_sql(
            "DELETE FROM pg_statistic WHERE starelid = 'audit_logs'::regclass"
        )
        connection.exec_driver_sql(
            "UPDATE pg_class SET reltuples = 0, relpages = 1 WHERE oid = 'audit_logs'::regclass"
        )
    add_rows(services, 1, 8_000, seal=False)

    with reads_of_rows() as reads, plans() as explained:
        assert prune(services, clock, days=399) == 8_000

    assert sum(reads) < 4 * 8_000
    assert len(explained) > 10
    assert [plan for plan in explained if "Seq Scan on audit_logs" in plan] == []


@contextmanager
def plans() -> Iterator[list[str]]:
    """Yield the plan of each statement on the log."""
    explained: list[str] = []

    def explain(connection: Any, _c: Any, statement: str, parameters: Any, *_more: Any) -> None:
        if "FROM audit_logs" in statement:
            with connection.connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN {statement}", parameters)
                explained.append("\n".join(line for (line,) in cursor.fetchall()))

    event.listen(db.engine, "before_cursor_execute", explain)
    yield explained
    event.remove(db.engine, "before_cursor_execute", explain)


@pytest.mark.thorough
@pytest.mark.parametrize("command", [["verify"], ["prune", "--older-than", "399d", "--yes"]])
def test_no_statement_has_a_time_out(app: Flask, services: Services, command: list[str]) -> None:
    """Counting ended after three seconds, so with 40 million rows nothing was ever pruned."""
    add_rows(services, 1, 10)
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(flask(app, *command)))
    with db.engine.connect() as blocker:
        blocker.exec_driver_sql("LOCK TABLE audit_logs IN ACCESS EXCLUSIVE MODE")
        thread.start()
        wait_until(_somebody_waited_for_four_seconds)
        blocker.rollback()
    thread.join(60)

    assert [result.exit_code for result in results] == [0], results[0].output


def _somebody_waited_for_four_seconds() -> bool:
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND query LIKE '%FROM audit_logs%' AND clock_timestamp() - query_start > interval '4 s'"
    )
    with db.engine.connect() as connection:
        return bool(connection.execute(text(query)).scalar())


@contextmanager
def ctrl_c_at(number: int, words: str) -> Iterator[None]:
    """Simulate Ctrl-C at a statement."""
    count = 0

    def press(_c: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        nonlocal count
        count += words in statement
        if count == number and words in statement:
            raise KeyboardInterrupt

    event.listen(db.engine, "before_cursor_execute", press)
    yield
    event.remove(db.engine, "before_cursor_execute", press)


@pytest.mark.thorough
def test_verifying_can_be_interrupted(app: Flask, services: Services) -> None:
    add_rows(services, 1, 12_000)

    with ctrl_c_at(5, "FROM audit_logs"):
        result = flask(app, "verify")

    assert result.exit_code == 130
    assert "Interrupted after 6000 rows: 0 findings so far." in result.output
    assert "Traceback" not in result.output
    verify(services)


@pytest.mark.thorough
def test_pruning_can_be_interrupted_and_continued(app: Flask, services: Services) -> None:
    add_rows(services, 1, 9_000)

    with ctrl_c_at(3, "DELETE FROM audit_logs"):
        interrupted = flask(app, "prune", "--older-than", "399d", "--yes")
    verify(services)
    again = flask(app, "prune", "--older-than", "399d", "--yes")

    assert interrupted.exit_code == 130
    assert "Interrupted: 4000 rows are deleted" in interrupted.output
    assert (again.exit_code, "Deleted 5000 rows" in again.output) == (0, True)
    verify(services)


def test_a_large_number_of_rows_is_estimated(
    app: Flask, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_rows(services, 1, 5_000)
    monkeypatch.setattr("userapi.audit.pruning.MAX_COUNTED", 100)

    result = flask(app, "prune", "--older-than", "399d")

    assert "Delete about 5000 rows" in result.output


def test_progress_is_shown_without_a_terminal(
    app: Flask, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_rows(services, 1, 5_000)
    monkeypatch.setattr("userapi.cli.support.LINE_EVERY_SECONDS", 0.0)

    result = flask(app, "verify")

    assert "Verifying: 2000 of 5000 rows (40 %)" in result.output
    assert "The audit log verifies." in result.output
