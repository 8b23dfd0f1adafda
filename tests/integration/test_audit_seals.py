"""The chain of seals: which direct changes of the database a verification finds."""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.support.deployments import Backend
from tests.support.facts import audit_rows
from userapi.actor import Actor, system_actor
from userapi.audit.actions import AuditAction
from userapi.audit.chain import Chain, pack, unpack
from userapi.audit.findings import Anchor, Finding, Verified
from userapi.audit.head import SealsBroken
from userapi.clock import ManualClock
from userapi.infrastructure.database import db, transaction
from userapi.wiring.services import Services

pytestmark = pytest.mark.both_databases

ACTOR = system_actor("tests")


@pytest.fixture(autouse=True)
def context(app: Flask) -> Iterator[None]:
    with app.app_context():
        yield


def record(services: Services, count: int = 1, actor: Actor = ACTOR) -> None:
    for number in range(count):
        services.audit.record_alone(
            AuditAction.USER_UPDATED, actor=actor, details={"n": number, "ratio": 0.1, "ü": None}
        )


def found(services: Services, anchor: Anchor | None = None) -> list[tuple[str, int | None, Any]]:
    findings: list[Finding] = []
    services.audit_verification.verify(findings.append, anchor=anchor)
    return [(str(f.kind), f.seal, f.row_id) for f in findings]


def verified(services: Services) -> Verified:
    return services.audit_verification.verify(lambda finding: pytest.fail(str(finding)))


@contextmanager
def past_the_triggers(app: Flask) -> Iterator[Callable[..., Any]]:
    """Yield a function that runs SQL as the owner of the database, without triggers."""
    with db.engine.begin() as connection:
        triggers: Sequence[Any] = ()
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        else:
            triggers = connection.exec_driver_sql(
                "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            ).all()
        for name, _ in triggers:
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        yield lambda sql, **values: connection.execute(text(sql), values)
        for _, definition in triggers:
            connection.exec_driver_sql(definition)


def key_of(app: Flask, row_id: UUID) -> str:
    return row_id.hex if db.engine.dialect.name == "sqlite" else str(row_id)


def test_rows_are_sealed_once_and_verify(app: Flask, services: Services) -> None:
    record(services, 3)

    sealed = [services.audit_seals.seal_due(), services.audit_seals.seal_due()]

    assert sealed == [3, 0]
    assert verified(services).rows == 3


@pytest.mark.thorough
def test_one_pass_makes_several_seals_up_to_its_limit(app: Flask, services: Services) -> None:
    with transaction():
        for _ in range(2100):
            services.audit.record(AuditAction.USER_UPDATED, actor=ACTOR)

    sealed = [services.audit_seals.seal_due(limit=1500), services.audit_seals.seal_due()]

    assert sealed == [1500, 600]
    after = verified(services)
    assert (after.seals, after.rows, after.waiting) == (3, 2100, 0)


def test_rows_that_wait_for_a_seal_are_no_finding(app: Flask, services: Services) -> None:
    record(services, 2)

    assert verified(services).waiting == 2


@pytest.mark.parametrize(
    "change",
    [
        "details = '{\"n\": 7}'",
        "actor_username = 'somebody'",
        "action = 'user.created'",
        "outcome = 'denied'",
        "occurred_at = '2020-01-01 00:00:00.000000'",
        "ip_address = '192.0.2.1'",
        "target_id = 'x'",
    ],
)
def test_an_altered_row_is_found_and_named(app: Flask, services: Services, change: str) -> None:
    record(services, 3)
    services.audit_seals.seal_due()
    victim = audit_rows(app)[1].id

    with past_the_triggers(app) as sql:
        sql(f"UPDATE audit_logs SET {change} WHERE id = :id", id=key_of(app, victim))

    assert found(services) == [("row_altered", 1, victim)]


def test_a_removed_row_is_found_and_named(app: Flask, services: Services) -> None:
    record(services, 3)
    services.audit_seals.seal_due()
    victim = audit_rows(app)[0].id

    with past_the_triggers(app) as sql:
        sql("DELETE FROM audit_logs WHERE id = :id", id=key_of(app, victim))

    assert found(services) == [("row_removed", 1, victim)]


def test_two_swapped_rows_are_both_found(app: Flask, services: Services) -> None:
    record(services, 4)
    services.audit_seals.seal_due()
    first, second = (row.id for row in audit_rows(app)[1:3])
    spare = UUID(int=1)

    with past_the_triggers(app) as sql:
        for old, new in ((first, spare), (second, first), (spare, second)):
            sql(
                "UPDATE audit_logs SET id = :new WHERE id = :old",
                old=key_of(app, old),
                new=key_of(app, new),
            )

    assert sorted(found(services), key=str) == sorted(
        [("row_altered", 1, first), ("row_altered", 1, second)], key=str
    )


def test_a_row_inserted_without_the_trigger_is_found(app: Flask, services: Services) -> None:
    record(services, 2)
    services.audit_seals.seal_due()
    forged = UUID(int=77)

    with past_the_triggers(app) as sql:
        sql(
            "INSERT INTO audit_logs (id, occurred_at, action, outcome, actor_type) VALUES"
            " (:id, '2026-01-01 00:00:00.000000', 'user.created', 'success', 'system')",
            id=key_of(app, forged),
        )

    assert found(services) == [("row_unaccounted", None, forged)]


def test_a_row_removed_before_its_seal_is_always_found(app: Flask, services: Services) -> None:
    record(services, 2)
    victim = audit_rows(app)[0].id
    with past_the_triggers(app) as sql:
        sql("DELETE FROM audit_logs WHERE id = :id", id=key_of(app, victim))

    before = found(services)
    services.audit_seals.seal_due()

    assert before == [("row_removed", None, victim)]
    assert found(services) == [("row_removed", 1, victim)]


def seal_thrice(services: Services) -> None:
    for _ in range(3):
        record(services, 2)
        services.audit_seals.seal_due()


def test_a_removed_seal_is_found_and_its_rows_with_it(app: Flask, services: Services) -> None:
    seal_thrice(services)
    rows = [row.id for row in audit_rows(app)]

    with past_the_triggers(app) as sql:
        sql("DELETE FROM audit_seals WHERE number = 2")

    assert found(services) == [
        ("seal_removed", 2, None),
        ("row_unaccounted", None, rows[2]),
        ("row_unaccounted", None, rows[3]),
    ]


def test_the_newest_seals_cut_off_with_their_rows_are_found(app: Flask, services: Services) -> None:
    seal_thrice(services)
    rows = [row.id for row in audit_rows(app)]

    with past_the_triggers(app) as sql:
        sql("DELETE FROM audit_seals WHERE number >= 2")
        for row in rows[2:]:
            sql("DELETE FROM audit_logs WHERE id = :id", id=key_of(app, row))

    assert found(services) == [("seal_removed", 2, None), ("seal_removed", 3, None)]


def test_a_head_that_was_reset_is_found(app: Flask, services: Services) -> None:
    seal_thrice(services)

    with past_the_triggers(app) as sql:
        sql("DELETE FROM audit_seals WHERE number = 3")
        sql("UPDATE audit_seal_head SET number = 2")

    assert ("head_altered", None, None) in found(services)
    record(services)
    with pytest.raises(SealsBroken):
        services.audit_seals.seal_due()


def test_a_head_that_was_removed_is_found(app: Flask, services: Services) -> None:
    seal_thrice(services)

    with past_the_triggers(app) as sql:
        sql("DELETE FROM audit_seal_head")

    assert ("head_removed", None, None) in found(services)
    record(services)
    with pytest.raises(SealsBroken):
        services.audit_seals.seal_due()


def test_an_earlier_genuine_head_reveals_the_later_seals(app: Flask, services: Services) -> None:
    seal_thrice(services)
    with db.engine.connect() as connection:
        old = connection.execute(text("SELECT * FROM audit_seal_head")).one()
    record(services)
    services.audit_seals.seal_due()

    with past_the_triggers(app) as sql:
        sql(
            "UPDATE audit_seal_head SET number = :number, rows_sealed = :rows, seal_mac = :seal,"
            " mac = :mac",
            number=old.number,
            rows=old.rows_sealed,
            seal=old.seal_mac,
            mac=old.mac,
        )

    assert found(services) == [("seal_unknown", 4, None)]


def test_a_restored_earlier_state_is_found_by_an_anchor(app: Flask, services: Services) -> None:
    """The chain in the database is valid: only data outside of it reveals the change."""
    record(services, 2)
    services.audit_seals.seal_due()
    anchor = verified(services).head
    assert found(services, anchor) == []
    with past_the_triggers(app) as sql:
        for table in ("audit_seals", "audit_unsealed", "audit_logs"):
            sql(f"DELETE FROM {table}")
        sql(
            "UPDATE audit_seal_head SET number = 0, rows_sealed = 0, seal_mac = '', cut_number = 0,"
            " cut_rows = 0, cut_mac = '', pruned_before = NULL, pruned_rows = 0, mac = ''"
        )

    assert found(services) == []
    assert found(services, anchor) == [("anchor_mismatch", 1, None)]


def test_two_swapped_seals_are_found(app: Flask, services: Services) -> None:
    seal_thrice(services)

    with past_the_triggers(app) as sql:
        for old, new in ((1, 99), (2, 1), (99, 2)):
            sql("UPDATE audit_seals SET number = :new WHERE number = :old", old=old, new=new)

    assert {(kind, seal) for kind, seal, _ in found(services)} == {
        ("seal_altered", 1),
        ("seal_altered", 2),
    }


def test_a_seal_rewritten_to_hide_a_row_is_found(app: Flask, services: Services) -> None:
    record(services, 3)
    services.audit_seals.seal_due()
    with past_the_triggers(app) as sql:
        (stored,) = sql("SELECT entries FROM audit_seals").one()
        victim, *left = unpack(bytes(stored))
        sql("DELETE FROM audit_logs WHERE id = :id", id=key_of(app, victim.id))
        sql(
            "UPDATE audit_seals SET entries = :entries, row_count = 2, first_id = :first,"
            " earliest_at = :at",
            entries=pack(left),
            first=key_of(app, left[0].id),
            at=left[0].occurred_at.strftime("%Y-%m-%d %H:%M:%S.%f"),
        )

    assert found(services) == [("seal_altered", 1, None)]


def test_a_seal_forged_without_the_key_is_found(app: Flask, services: Services) -> None:
    """Everything is written as the service would write it, but with a guessed key."""
    record(services, 2)
    services.audit_seals.seal_due()
    guessed = Chain("a guess that is as long as a secret has to be")
    with past_the_triggers(app) as sql:
        seal = sql("SELECT * FROM audit_seals").one()
        sealed_at = seal.sealed_at
        sealed_at = services.clock.now() if isinstance(sealed_at, str) else sealed_at
        mac = guessed.seal_mac(
            number=1, sealed_at=sealed_at, previous_mac="", entries=bytes(seal.entries)
        )
        sql("UPDATE audit_seals SET mac = :mac", mac=mac)

    assert found(services) == [("seal_altered", 1, None)]


def test_a_forged_seal_with_a_distant_number_does_not_block_a_verification(
    app: Flask, services: Services
) -> None:
    """Each missing seal before it was reported, which took years with such a number."""
    seal_thrice(services)
    with past_the_triggers(app) as sql:
        seal = sql("SELECT * FROM audit_seals WHERE number = 3").one()
        columns = [name for name in seal._mapping if name != "number"]
        names = ", ".join(columns)
        sql(
            f"INSERT INTO audit_seals (number, {names})"  # nosec B608 - names of columns
            f" SELECT 4000000000000, {names} FROM audit_seals WHERE number = 3"
        )

    kinds = {(kind, seal) for kind, seal, _ in found(services)}

    assert {("seal_removed", 4), ("seal_unknown", 4000000000000)} <= kinds


def test_another_key_verifies_nothing(
    app: Flask, services: Services, make_app: Callable[..., Flask]
) -> None:
    record(services)
    services.audit_seals.seal_due()
    other = make_app(ENCRYPTION_KEY="another-key-for-seals-8Kd02mNq5vXz7Tb1")

    with other.app_context():
        kinds = {kind for kind, _, _ in found(other.extensions["userapi"])}

    assert kinds == {"key_missing"}


def test_the_former_secret_as_seal_key_keeps_the_chain(
    app: Flask, services: Services, make_app: Callable[..., Flask]
) -> None:
    """SECRET_KEY can be changed if AUDIT_SEAL_KEY is set to its former value."""
    record(services)
    services.audit_seals.seal_due()
    other = make_app(
        SECRET_KEY="a-new-secret-after-the-change-7Gs2Lp9Qx4",
        AUDIT_SEAL_KEY=services.settings.secret_key,
    )

    with other.app_context():
        assert found(other.extensions["userapi"]) == []


def test_a_row_that_commits_late_is_sealed_by_a_later_pass(app: Flask, services: Services) -> None:
    """Its time and id are older than those of rows that were sealed before it was visible."""
    if db.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time: nothing can commit late")
    written, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        with app.app_context(), transaction():
            services.audit.record(AuditAction.USER_CREATED, actor=ACTOR)
            written.set()
            assert go_on.wait(20)

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(slow)
        assert written.wait(20)
        record(services, 2)
        early = services.audit_seals.seal_due()
        go_on.set()
        late.result()
    afterwards = services.audit_seals.seal_due()

    assert (early, afterwards) == (2, 1)
    assert audit_rows(app)[0].action == "user.created"
    assert verified(services).rows == 3


def test_a_row_that_is_rolled_back_leaves_nothing_to_seal(app: Flask, services: Services) -> None:
    with pytest.raises(LookupError), transaction():
        services.audit.record(AuditAction.USER_CREATED, actor=ACTOR)
        raise LookupError

    assert services.audit_seals.seal_due() == 0


def test_old_rows_are_sealed_like_others(
    app: Flask, services: Services, clock: ManualClock
) -> None:
    record(services)
    services.audit_seals.seal_due()
    clock.advance(days=-700)
    record(services)
    clock.advance(days=700)

    assert services.audit_seals.seal_due() == 1
    assert verified(services).rows == 2


def test_concurrent_sealers_seal_each_row_once(app: Flask, services: Services) -> None:
    with transaction():
        for _ in range(300):
            services.audit.record(AuditAction.USER_UPDATED, actor=ACTOR)

    def seal() -> int:
        with app.app_context():
            return sum(services.audit_seals.seal_due(limit=20) for _ in range(20))

    with ThreadPoolExecutor(4) as pool:
        sealed = sum(pool.map(lambda _: seal(), range(4)))

    while more := services.audit_seals.seal_due():
        sealed += more
    assert sealed == 300
    assert verified(services).rows == 300


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_logs SET outcome = 'denied'",
        "DELETE FROM audit_logs",
        "UPDATE audit_seals SET row_count = 0",
        "DELETE FROM audit_seals",
    ],
)
def test_no_sql_changes_or_deletes_rows_and_seals(
    app: Flask, services: Services, statement: str
) -> None:
    record(services)
    services.audit_seals.seal_due()

    with pytest.raises((DBAPIError, sqlite3.Error), match="cannot be changed or deleted"):
        with db.engine.begin() as connection:
            connection.exec_driver_sql(statement)

    assert verified(services).rows == 1


@pytest.mark.parametrize(("table", "key"), [("audit_logs", "id"), ("audit_seals", "number")])
def test_no_row_or_seal_is_replaced(
    app: Flask, services: Services, backend: Backend, table: str, key: str
) -> None:
    """REPLACE, on SQLite, deleted the existing row without a DELETE trigger."""
    record(services)
    services.audit_seals.seal_due()
    replacing = {
        Backend.SQLITE: f"REPLACE INTO {table} SELECT * FROM {table}",
        Backend.POSTGRESQL: f"INSERT INTO {table} SELECT * FROM {table}"
        f" ON CONFLICT ({key}) DO UPDATE SET {key} = excluded.{key}",
    }

    with pytest.raises((DBAPIError, sqlite3.Error), match="cannot be changed or deleted"):
        with db.engine.begin() as connection:
            connection.exec_driver_sql(replacing[backend])

    assert verified(services).rows == 1


@pytest.mark.parametrize("table", ["audit_logs", "audit_seals"])
def test_no_table_is_emptied(app: Flask, services: Services, backend: Backend, table: str) -> None:
    if backend is Backend.SQLITE:
        pytest.skip("SQLite has no TRUNCATE")
    record(services)

    with pytest.raises(DBAPIError, match="cannot be changed or deleted"):
        with db.engine.begin() as connection:
            connection.exec_driver_sql(f"TRUNCATE {table}")
