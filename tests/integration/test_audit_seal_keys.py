"""The keys of the audit seals: previous ones verify, and a missing one is reported as such."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.integration.test_audit_seals import found, key_of, past_the_triggers, record, verified
from tests.support.facts import audit_rows
from userapi.actor import system_actor
from userapi.audit.findings import Finding
from userapi.audit.head import SealKeyMissing
from userapi.audit.seal_keys import UNNAMED
from userapi.audit.seals import ChainAlreadyBegun
from userapi.diagnosis import audit
from userapi.diagnosis.findings import Finding as DoctorFinding
from userapi.diagnosis.findings import Level
from userapi.errors import Invalid
from userapi.infrastructure.database import db, reading, transaction
from userapi.infrastructure.encryption import key_id
from userapi.wiring.services import Services

pytestmark = [pytest.mark.both_databases, pytest.mark.thorough]

MakeApp = Callable[..., Flask]

NEW_ENCRYPTION_KEY = "another-encryption-key-8Kd02mNq5vXz7Tb1"
SEAL_KEY = "a-key-for-seals-alone-3Hs91kWp6yRf4Cj8"
NEW_SEAL_KEY = "the-next-key-for-seals-5Lm27dQx0zTg9Vn3"
NEW_SECRET_KEY = "a-new-secret-after-the-change-7Gs2Lp9Qx4"


@pytest.fixture(autouse=True)
def context(app: Flask) -> Iterator[None]:
    with app.app_context():
        yield


def of(app: Flask) -> Services:
    services: Services = app.extensions["userapi"]
    return services


def flask(app: Flask, *arguments: str) -> Result:
    # A command uses the application of the current context.
    with app.app_context():
        return app.test_cli_runner().invoke(args=list(arguments))


def seal_some(app: Flask, count: int = 2) -> None:
    with app.app_context():
        record(of(app), count)
        assert of(app).audit_seals.seal_due() >= count


def seal_as_an_earlier_release(app: Flask, make_app: MakeApp) -> None:
    """Create the chain of an early release, which used SECRET_KEY and named no key."""
    earlier = make_app(AUDIT_SEAL_KEY=of(app).settings.secret_key)
    seal_some(earlier)
    seal_some(earlier)
    with app.app_context(), past_the_triggers(app) as sql:
        sql("UPDATE audit_seals SET key_id = NULL")
        sql("UPDATE audit_seal_head SET key_id = NULL")


def findings(app: Flask) -> list[tuple[str, int | None, Any]]:
    with app.app_context():
        return found(of(app))


# Former keys


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"ENCRYPTION_KEY": NEW_ENCRYPTION_KEY, "ENCRYPTION_KEY_PREVIOUS": "the former"}),
        ({}, {"AUDIT_SEAL_KEY": SEAL_KEY}),
        (
            {"AUDIT_SEAL_KEY": SEAL_KEY},
            {"AUDIT_SEAL_KEY": NEW_SEAL_KEY, "AUDIT_SEAL_KEY_PREVIOUS": SEAL_KEY},
        ),
        ({"AUDIT_SEAL_KEY": SEAL_KEY}, {"AUDIT_SEAL_KEY_PREVIOUS": SEAL_KEY}),
        ({}, {"SECRET_KEY": NEW_SECRET_KEY}),
    ],
    ids=["encryption-key", "own-key", "own-key-changed", "own-key-left-out", "secret-key"],
)
def test_a_previous_key_verifies_and_the_current_one_seals(
    app: Flask, make_app: MakeApp, before: dict[str, str], after: dict[str, str]
) -> None:
    if after.get("ENCRYPTION_KEY_PREVIOUS"):
        after = after | {"ENCRYPTION_KEY_PREVIOUS": of(app).settings.encryption_key}
    earlier, later = make_app(**before), make_app(**after)
    seal_some(earlier)

    seal_some(later)

    assert findings(later) == []
    with later.app_context():
        assert verified(of(later)).unchecked == 0
        assert of(later).audit_seals.missing_keys(_connection()) == []


def test_each_seal_names_its_key(app: Flask, make_app: MakeApp) -> None:
    seal_some(make_app(AUDIT_SEAL_KEY=SEAL_KEY))
    seal_some(make_app(AUDIT_SEAL_KEY=NEW_SEAL_KEY, AUDIT_SEAL_KEY_PREVIOUS=SEAL_KEY))

    with reading() as connection:
        named = connection.execute(text("SELECT number, key_id FROM audit_seals ORDER BY 1")).all()
        head = connection.execute(text("SELECT key_id FROM audit_seal_head")).scalar_one()

    assert [tuple(row) for row in named] == [(1, key_id(SEAL_KEY)), (2, key_id(NEW_SEAL_KEY))]
    assert head == key_id(NEW_SEAL_KEY)


def test_seals_of_an_earlier_release_verify_and_are_continued(
    app: Flask, make_app: MakeApp
) -> None:
    seal_as_an_earlier_release(app, make_app)

    before = findings(app)
    seal_some(app)

    assert before == []
    assert findings(app) == []


@pytest.mark.thorough
@pytest.mark.parametrize("continued", [False, True])
def test_seals_of_an_earlier_release_need_its_secret(
    app: Flask, make_app: MakeApp, continued: bool
) -> None:
    """Fault: a changed SECRET_KEY made every row look altered."""
    seal_as_an_earlier_release(app, make_app)
    if continued:
        seal_some(app)

    changed = make_app(SECRET_KEY=NEW_SECRET_KEY)
    with_former = make_app(
        SECRET_KEY=NEW_SECRET_KEY, AUDIT_SEAL_KEY_PREVIOUS=of(app).settings.secret_key
    )

    assert {kind for kind, _, _ in findings(changed)} == {"key_missing"}
    with changed.app_context():
        assert of(changed).audit_seals.missing_keys(_connection()) == [UNNAMED]
    assert findings(with_former) == []


@pytest.mark.thorough
def test_an_altered_seal_of_an_earlier_release_is_found(app: Flask, make_app: MakeApp) -> None:
    seal_as_an_earlier_release(app, make_app)

    with past_the_triggers(app) as sql:
        sql("UPDATE audit_seals SET mac = :mac WHERE number = 1", mac="0" * 64)

    assert ("seal_altered", 1, None) in findings(app)


# A missing key


def test_a_missing_key_is_reported_as_missing_and_never_as_altered(
    app: Flask, make_app: MakeApp
) -> None:
    seal_some(app)
    seal_some(app)
    other = make_app(ENCRYPTION_KEY=NEW_ENCRYPTION_KEY)

    result = flask(other, "audit", "verify")

    assert result.exit_code == 1
    assert "sealed with a key that is not here" in result.output
    assert "altered" not in result.output
    assert "2 seals were made with a key that is not here" in result.output
    assert [kind for kind, _, _ in findings(other)] == ["key_missing"]


def test_nothing_is_sealed_on_a_chain_that_cannot_be_checked(app: Flask, make_app: MakeApp) -> None:
    seal_some(app)
    other = make_app(ENCRYPTION_KEY=NEW_ENCRYPTION_KEY)

    with other.app_context():
        record(of(other))
        with pytest.raises(SealKeyMissing):
            of(other).audit_seals.seal_due()

    assert verified(of(app)).waiting == 1


def test_the_worker_continues_without_the_key_and_logs_it_once(
    app: Flask, make_app: MakeApp, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fault: it logged an error every second."""
    seal_some(app)
    other = make_app(ENCRYPTION_KEY=NEW_ENCRYPTION_KEY)
    with other.app_context():
        record(of(other))

        passes = [of(other).audit_seals.keep_sealing() for _ in range(20)]

    assert passes == [0] * 20
    assert capsys.readouterr().out.count("audit.sealing_stopped") == 1


def test_sealing_continues_when_the_key_is_configured_again(app: Flask, make_app: MakeApp) -> None:
    seal_some(app)
    other = make_app(ENCRYPTION_KEY=NEW_ENCRYPTION_KEY)
    with other.app_context():
        record(of(other))
        of(other).audit_seals.keep_sealing()

    sealed = of(app).audit_seals.keep_sealing()

    assert sealed == 1
    assert findings(app) == []


def test_doctor_names_the_settings_to_change(app: Flask, make_app: MakeApp) -> None:
    seal_some(app)
    other = make_app(ENCRYPTION_KEY=NEW_ENCRYPTION_KEY)

    good, bad = _audit_finding(app), _audit_finding(other)

    assert good.level is Level.OK
    assert bad.level is Level.FAULT
    assert "a key that is not here" in bad.text
    assert bad.fix is not None
    assert "AUDIT_SEAL_KEY_PREVIOUS or ENCRYPTION_KEY_PREVIOUS" in bad.fix


def _audit_finding(app: Flask) -> DoctorFinding:
    with app.app_context():
        (finding,) = audit.findings(of(app).audit_seals)
        return finding


@pytest.mark.thorough
def test_a_metric_counts_the_missing_keys(app: Flask, make_app: MakeApp) -> None:
    seal_some(app)
    other = make_app(ENCRYPTION_KEY=NEW_ENCRYPTION_KEY)

    assert _metric(app) == 0.0
    assert _metric(other) == 1.0


def _metric(app: Flask) -> float:
    scrape = app.test_client().get("/metrics").get_data(as_text=True)
    (value,) = re.findall(r"^audit_seal_keys_missing (\S+)$", scrape, re.MULTILINE)
    return float(value)


def _connection() -> Any:
    return db.session.connection()


# A new chain


def lose_the_key(app: Flask, make_app: MakeApp) -> Flask:
    seal_some(app)
    seal_some(app)
    other = make_app(ENCRYPTION_KEY=NEW_ENCRYPTION_KEY)
    with other.app_context():
        record(of(other))
    return other


def test_the_begin_of_a_new_chain_is_recorded(app: Flask, make_app: MakeApp) -> None:
    other = lose_the_key(app, make_app)

    anchored = flask(other, "audit", "anchor", "--reason", "Key lost in the fire")
    sealed = flask(other, "audit", "seal")
    result = flask(other, "audit", "verify")

    assert (anchored.exit_code, sealed.exit_code, result.exit_code) == (0, 0, 0), result.output
    assert "A new chain begins at seal 3" in anchored.output
    assert re.search(r"A new chain begins at seal 3, .* UTC: Key lost in the fire", result.output)
    assert "2 seals were made with a key that is not here" in result.output
    assert "The audit log verifies." in result.output
    (row,) = audit_rows(app, action="audit.anchored")
    assert row.details["reason"] == "Key lost in the fire"
    assert row.actor_type == "system"
    assert _metric(other) == 0.0


def test_rows_of_the_new_chain_are_protected(app: Flask, make_app: MakeApp) -> None:
    other = lose_the_key(app, make_app)
    flask(other, "audit", "anchor", "--reason", "Key lost", "--yes")
    seal_some(other)
    (row,) = audit_rows(app, action="audit.anchored")

    with past_the_triggers(app) as sql:
        sql(
            "UPDATE audit_logs SET actor_username = 'x' WHERE id = :id",
            id=key_of(app, row.id),
        )

    assert findings(other) == [("row_altered", 3, row.id)]


def test_a_seal_of_the_new_chain_cannot_name_a_lost_key(app: Flask, make_app: MakeApp) -> None:
    other = lose_the_key(app, make_app)
    flask(other, "audit", "anchor", "--reason", "Key lost", "--yes")
    seal_some(other)
    lost = of(app).audit_seal_keys.current.key_id

    with past_the_triggers(app) as sql:
        sql("UPDATE audit_seals SET key_id = :lost WHERE number = 3", lost=lost)

    assert ("key_missing", 3, None) in findings(other)


def test_a_removed_or_forged_chain_start_is_found(app: Flask, make_app: MakeApp) -> None:
    other = lose_the_key(app, make_app)
    flask(other, "audit", "anchor", "--reason", "Key lost", "--yes")
    seal_some(other)

    with past_the_triggers(app) as sql:
        sql("UPDATE audit_chain_starts SET reason = 'Nothing special'")
    forged = findings(other)
    with past_the_triggers(app) as sql:
        sql("DELETE FROM audit_chain_starts")
    removed = findings(other)

    assert ("chain_start_altered", 3, None) in forged
    assert ("key_missing", 1, None) in removed


@pytest.mark.thorough
@pytest.mark.parametrize("change", ["DELETE FROM", "UPDATE"])
def test_no_sql_of_the_service_changes_a_chain_start(
    app: Flask, make_app: MakeApp, change: str
) -> None:
    other = lose_the_key(app, make_app)
    flask(other, "audit", "anchor", "--reason", "Key lost", "--yes")
    statement = f"{change} audit_chain_starts" + (" SET reason = 'x'" if change == "UPDATE" else "")

    with pytest.raises(DBAPIError, match="cannot be changed or deleted"), transaction() as session:
        session.execute(text(statement))


def test_earlier_seals_are_verified_if_their_key_is_configured(app: Flask) -> None:
    seal_some(app)
    seal_some(app)
    of(app).audit_seals.begin_chain("A fresh start", actor=system_actor("tests"))
    seal_some(app)
    assert findings(app) == []

    with past_the_triggers(app) as sql:
        sql("UPDATE audit_seals SET mac = :mac WHERE number = 2", mac="0" * 64)

    assert findings(app) == [("seal_altered", 2, None)]


def test_the_last_seal_before_a_new_chain_cannot_be_removed(app: Flask) -> None:
    seal_some(app)
    seal_some(app)
    of(app).audit_seals.begin_chain("A fresh start", actor=system_actor("tests"))

    with past_the_triggers(app) as sql:
        sql("DELETE FROM audit_seals WHERE number = 2")

    assert ("seal_removed", 2, None) in findings(app)


def test_a_new_chain_restores_a_removed_head(app: Flask) -> None:
    seal_some(app)
    with past_the_triggers(app) as sql:
        sql("DELETE FROM audit_seal_head")

    of(app).audit_seals.begin_chain("The head is gone", actor=system_actor("tests"))
    seal_some(app)

    assert findings(app) == []


def test_a_new_chain_begins_once_before_the_next_seal(app: Flask) -> None:
    seal_some(app)
    of(app).audit_seals.begin_chain("A fresh start", actor=system_actor("tests"))

    with pytest.raises(ChainAlreadyBegun):
        of(app).audit_seals.begin_chain("And again", actor=system_actor("tests"))


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501, "a\nb"])
def test_a_new_chain_requires_a_reason(app: Flask, reason: str) -> None:
    with pytest.raises(Invalid):
        of(app).audit_seals.begin_chain(reason, actor=system_actor("tests"))


def test_pruning_continues_across_a_chain_start(app: Flask, make_app: MakeApp, clock: Any) -> None:
    other = lose_the_key(app, make_app)
    flask(other, "audit", "anchor", "--reason", "Key lost", "--yes")
    seal_some(other)
    clock.advance(days=400)
    seal_some(other)

    pruned = flask(other, "audit", "prune", "--older-than", "365d", "--yes")

    assert pruned.exit_code == 0, pruned.output
    kept: list[Finding] = []
    with other.app_context():
        after = of(other).audit_verification.verify(kept.append)
    assert kept == []
    assert (after.unchecked, [start.number for start in after.starts]) == (0, [3])
