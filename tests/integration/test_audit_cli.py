"""flask audit: reading, exporting, pruning and verifying on the command line."""

import csv
import io
import json
import random
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import select, text

from tests.support.facts import audit_rows
from userapi.actor import Actor, ActorType, system_actor
from userapi.audit.actions import AuditAction, Outcome
from userapi.audit.models import AuditRetention, AuditSeal
from userapi.audit.pruning import ROWS_AT_ONCE
from userapi.clock import ManualClock
from userapi.infrastructure.database import db, reading, transaction
from userapi.wiring.services import Services

pytestmark = pytest.mark.both_databases

ACTOR = system_actor("tests")


def flask(app: Flask, *arguments: str, stdin: str | None = None) -> Result:
    return app.test_cli_runner().invoke(args=["audit", *arguments], input=stdin)


def record(app: Flask, clock: ManualClock, *, days_ago: float = 0, count: int = 1) -> None:
    """Add rows as they would have been added so many days ago."""
    services: Services = app.extensions["userapi"]
    clock.advance(days=-days_ago)
    with app.app_context(), transaction():
        for _ in range(count):
            services.audit.record(AuditAction.USER_UPDATED, actor=ACTOR)
    clock.advance(days=days_ago)


def seal(app: Flask) -> int:
    services: Services = app.extensions["userapi"]
    with app.app_context():
        return services.audit_seals.seal_due()


def test_rows_are_listed_newest_first_and_filtered(app: Flask, clock: ManualClock) -> None:
    record(app, clock, days_ago=3)
    services: Services = app.extensions["userapi"]
    with app.app_context():
        services.audit.record_alone(
            AuditAction.AUTH_LOGIN,
            actor=Actor(type=ActorType.USER, username="robin", ip_address="192.0.2.9"),
            outcome=Outcome.FAILURE,
        )

    everything = flask(app, "list")
    filtered = flask(app, "list", "--outcome", "failure", "--action", "auth.login")

    actions = re.findall(r"user\.updated|auth\.login", everything.output)
    assert actions == ["auth.login", "user.updated"]
    assert "1 of 1 shown." in filtered.output
    assert "robin" in filtered.output
    assert "192.0.2.9" in filtered.output
    assert len(audit_rows(app, action="audit.read")) == 2


def test_what_a_terminal_would_obey_is_not_printed(app: Flask) -> None:
    services: Services = app.extensions["userapi"]
    with app.app_context():
        services.audit.record_alone(
            AuditAction.AUTH_LOGIN, actor=Actor(type=ActorType.USER, username="a\x1b[2Jb")
        )

    assert "a?[2Jb" in flask(app, "list").output


def test_an_export_goes_to_a_file_or_to_standard_output(
    app: Flask, clock: ManualClock, tmp_path: Path
) -> None:
    record(app, clock, count=3)
    file = tmp_path / "log.csv"

    printed = flask(app, "export", "--action", "user.updated")
    written = flask(app, "export", "--format", "csv", "--output", str(file))

    assert [json.loads(line)["action"] for line in printed.output.splitlines()] == [
        "user.updated"
    ] * 3
    assert written.exit_code == 0
    rows = list(csv.DictReader(io.StringIO(file.read_text("utf-8"))))
    assert [row["action"] for row in rows] == ["audit.read"] * 2 + ["user.updated"] * 3


def test_pruning_deletes_what_is_older_and_records_itself(app: Flask, clock: ManualClock) -> None:
    record(app, clock, days_ago=400, count=3)
    record(app, clock, days_ago=10, count=2)

    result = flask(app, "prune", "--older-than", "365d", "--yes")

    assert result.exit_code == 0, result.output
    assert "Deleted 3 rows" in result.output
    assert [row.action for row in audit_rows(app)] == ["user.updated"] * 2 + ["audit.pruned"]
    (pruned,) = audit_rows(app, action="audit.pruned")
    boundary = datetime.fromisoformat(pruned.details["before"])
    assert pruned.details["rows"] == 3
    assert abs(clock.now() - timedelta(days=365) - boundary) < timedelta(minutes=1)
    assert (pruned.actor_type, pruned.actor_username) == ("system", "cli")


def test_pruning_asks_first(app: Flask, clock: ManualClock) -> None:
    record(app, clock, days_ago=400)

    refused = flask(app, "prune", "--older-than", "365d", stdin="n\n")
    agreed = flask(app, "prune", "--older-than", "365d", stdin="y\n")

    assert refused.exit_code == 1
    assert "Delete 1 rows" in refused.output
    assert agreed.exit_code == 0
    assert [row.action for row in audit_rows(app)] == ["audit.pruned"]


@pytest.mark.parametrize("age", ["0d", "365", "d", "-1d", "1y", "1.5h", ""])
def test_an_age_that_is_none_is_refused(app: Flask, clock: ManualClock, age: str) -> None:
    record(app, clock, days_ago=400)

    result = flask(app, "prune", "--yes", "--older-than", age)

    assert result.exit_code == 2
    assert len(audit_rows(app)) == 1


@pytest.mark.thorough
def test_pruning_in_batches_deletes_and_records_every_row(app: Flask, clock: ManualClock) -> None:
    count = ROWS_AT_ONCE + 10
    record(app, clock, days_ago=2, count=count)

    result = flask(app, "prune", "--older-than", "12h", "--yes")

    assert f"Deleted {count} rows" in result.output
    pruned = audit_rows(app, action="audit.pruned")
    assert [row.details["rows"] for row in pruned] == [ROWS_AT_ONCE, 10]
    assert len(audit_rows(app)) == 2


def test_the_way_out_is_shut_after_pruning(app: Flask, clock: ManualClock) -> None:
    record(app, clock, days_ago=400, count=2)
    record(app, clock, days_ago=300)
    flask(app, "prune", "--older-than", "350d", "--yes")

    with app.app_context(), reading() as connection:
        boundary = connection.execute(select(AuditRetention.deletable_before)).scalar_one()

    assert boundary is None
    with app.app_context(), pytest.raises(Exception, match="cannot be changed or deleted"):
        with db.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM audit_logs")


def test_what_is_left_after_pruning_verifies(app: Flask, clock: ManualClock) -> None:
    """Seals that lose all their rows go; one that loses some stays and excuses them."""
    for days_ago in (400, 390):
        record(app, clock, days_ago=days_ago, count=2)
        seal(app)
    record(app, clock, days_ago=380)
    record(app, clock, days_ago=5)
    seal(app)

    flask(app, "prune", "--older-than", "365d", "--yes")
    seal(app)
    result = flask(app, "verify")

    assert result.exit_code == 0, result.output
    assert "5 were pruned" in result.output
    with app.app_context(), reading() as connection:
        assert list(connection.execute(select(AuditSeal.number)).scalars()) == [3, 4]


def test_a_removed_row_is_not_taken_for_a_pruned_one(app: Flask, clock: ManualClock) -> None:
    record(app, clock, days_ago=400, count=2)
    record(app, clock, days_ago=5, count=2)
    flask(app, "prune", "--older-than", "365d", "--yes")
    seal(app)
    victim = audit_rows(app, action="user.updated")[0]
    remove(app, victim.id)

    result = flask(app, "verify")

    assert result.exit_code == 1
    assert f"row_removed: row {victim.id}, seal" in result.output


def test_rows_that_do_not_verify_are_pruned_only_on_request(app: Flask, clock: ManualClock) -> None:
    record(app, clock, days_ago=400, count=3)
    seal(app)
    remove(app, audit_rows(app)[1].id)

    refused = flask(app, "prune", "--older-than", "365d", "--yes")
    left = len(audit_rows(app))
    forced = flask(app, "prune", "--older-than", "365d", "--yes", "--despite-findings")

    assert refused.exit_code == 1
    assert "Nothing is pruned" in refused.output
    assert left == 2
    assert forced.exit_code == 0
    assert flask(app, "verify").exit_code == 0


def test_pruned_days_keep_their_figures(app: Flask, clock: ManualClock) -> None:
    services: Services = app.extensions["userapi"]
    clock.advance(days=-20)
    with app.app_context(), transaction():
        services.audit.record(AuditAction.USER_REGISTERED, actor=ACTOR)
    clock.advance(days=20)
    flask(app, "prune", "--older-than", "10d", "--yes")

    with app.app_context():
        clock.advance(minutes=2)
        figures = services.statistics.figures(30)

    assert sum(day.registrations for day in figures.days) == 1


def test_verifying_says_that_all_is_well_and_gives_an_anchor(
    app: Flask, clock: ManualClock
) -> None:
    record(app, clock, count=3)

    sealed = flask(app, "seal")
    result = flask(app, "verify")

    assert "Sealed 3 rows." in sealed.output
    assert result.exit_code == 0
    anchor = re.search(r"Anchor to store elsewhere: (1:[0-9a-f]{64})", result.output)
    assert anchor is not None
    assert flask(app, "verify", "--anchor", anchor[1]).exit_code == 0
    assert flask(app, "verify", "--anchor", "1:" + "0" * 64).exit_code == 1
    assert flask(app, "verify", "--anchor", "nonsense").exit_code == 2


def test_any_single_tampering_after_pruning_is_found(app: Flask, clock: ManualClock) -> None:
    """Seals of different sizes, pruned in their middle; then one random thing is done to them."""
    chance = random.Random(20260101)
    for days_ago in (50, 40, 30, 20, 10):
        record(app, clock, days_ago=days_ago, count=chance.randint(1, 6))
        if chance.random() < 0.7:
            seal(app)
    flask(app, "prune", "--older-than", "25d", "--yes")
    seal(app)
    assert flask(app, "verify").exit_code == 0
    rows = audit_rows(app)

    remove(app, chance.choice(rows).id)

    assert flask(app, "verify").exit_code == 1


def remove(app: Flask, row_id: Any) -> None:
    """Delete a row as the owner of the database."""
    with app.app_context(), db.engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
            connection.execute(text("DELETE FROM audit_logs WHERE id = :id"), {"id": row_id})
            return
        trigger = connection.exec_driver_sql(
            "SELECT sql FROM sqlite_master WHERE name = 'audit_logs_undeletable'"
        ).scalar_one()
        connection.exec_driver_sql("DROP TRIGGER audit_logs_undeletable")
        connection.execute(text("DELETE FROM audit_logs WHERE id = :id"), {"id": row_id.hex})
        connection.exec_driver_sql(trigger)


def test_a_moment_in_the_future_is_no_boundary(app: Flask, services: Services) -> None:
    with app.app_context(), pytest.raises(Exception, match="fields are invalid"):
        services.audit_pruning.prune(datetime.now(UTC) + timedelta(days=1), actor=ACTOR)
