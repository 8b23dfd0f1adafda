"""Import jobs: creation, progress, cancellation, and continuation by another worker."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Table, func, select, update

from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events
from tests.support.metrics import sample
from tests.support.users import LogIn, MakeUser, SignedInClient
from userapi.accounts.batch_jobs import count_unfinished
from userapi.accounts.imports.importing import BATCH_PASSWORDS, UserImports
from userapi.accounts.imports.insertion import UserInsertion
from userapi.accounts.imports.job_models import ImportBatch, ImportedRow, ImportJob, jobs_table
from userapi.accounts.imports.job_runner import ImportRunner
from userapi.accounts.imports.screening import RowScreening
from userapi.accounts.imports.sealed_batches import SealedBatches
from userapi.cleanup import CleanUp
from userapi.clock import ManualClock
from userapi.infrastructure.database import (
    reading,
    table_of,
    transaction,
)
from userapi.passwords.hashing import PasswordHasher
from userapi.passwords.hashing_pool import HashingPool
from userapi.passwords.peppers import Peppers
from userapi.recorder import Recorder
from userapi.wiring.services import Services

IMPORT = "/api/v1/users/import"
NDJSON = "application/x-ndjson"
PASSWORD = "marble-heron-58-lantern"
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def admin(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["admin"]))


def row_of(name: str, **more: Any) -> dict[str, Any]:
    return {"username": name, "email": f"{name}@example.com", **more}


def with_passwords(count: int) -> list[dict[str, Any]]:
    return [row_of(f"user{number:04}", password=PASSWORD) for number in range(1, count + 1)]


def ask(
    client: SignedInClient,
    rows: list[dict[str, Any]],
    *,
    headers: dict[str, str] | None = None,
    **query: str,
) -> Any:
    body = "\n".join(json.dumps(row) for row in rows)
    return client.post(
        IMPORT, data=body.encode(), headers={"Content-Type": NDJSON} | (headers or {}), query=query
    )


def advance(app: Flask, services: Services, *, batches: int = 1000) -> None:
    """Let the worker import at most this many batches."""
    with app.app_context():
        for _ in range(batches):
            if not services.import_runner.advance():
                return


def another_worker(
    services: Services, *, while_hashing: Callable[[], object] = lambda: None
) -> ImportRunner:
    """Return the runner of another process, which shares only the database.

    `while_hashing` happens once, in the middle of a batch.
    """
    happened = threading.Lock()

    def hashed(_seconds: float) -> None:
        if happened.acquire(blocking=False):
            while_hashing()

    hasher = PasswordHasher(
        peppers=Peppers(services.settings.password_pepper),
        rounds=4,
        pool=HashingPool(queue_limit=64, observe=hashed),
    )
    imports = UserImports(
        screening=RowScreening(policy=services.policy, roles=services.roles),
        insertion=UserInsertion(
            recorder=Recorder(audit=services.audit, outbox=services.outbox, clock=services.clock),
            one_time_tokens=services.one_time_tokens,
        ),
        hasher=hasher,
    )
    return ImportRunner(
        clock=services.clock,
        batches=SealedBatches(services.encryption),
        imports=imports,
        roles=services.roles,
    )


def counted(app: Flask, model: Any) -> int:
    table: Table = model.__table__
    with app.app_context(), reading() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def all_results(client: SignedInClient, location: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query = {"page_size": "100"}
    while True:
        page = client.get(f"{location}/results", query=query).get_json()
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        query = {"page_size": "100", "cursor": page["next_cursor"]}


def test_a_file_with_many_passwords_becomes_a_job(
    app: Flask, services: Services, admin: SignedInClient, client: JsonClient
) -> None:
    answer = ask(admin, with_passwords(201))

    assert answer.status_code == 202
    job = answer.get_json()
    location = answer.headers["Location"]
    assert location == f"/api/v1/users/imports/{job['id']}"
    assert (job["state"], job["rows"], job["done"]) == ("queued", 201, 0)
    assert admin.get("/api/v1/users/?search=user0").get_json()["total"] == 0

    advance(app, services, batches=1)
    half = admin.get(location).get_json()
    assert (half["state"], half["done"]) == ("running", BATCH_PASSWORDS)
    assert half["started_at"] and half["finished_at"] is None

    advance(app, services)
    done = admin.get(location).get_json()
    assert (done["state"], done["done"], done["created"], done["failed"]) == ("done", 201, 201, 0)
    assert done["finished_at"] and done["dry_run"] is False
    results = all_results(admin, location)
    assert [result["row"] for result in results] == list(range(1, 202))
    assert {result["status"] for result in results} == {"created"}
    user = admin.get(f"/api/v1/users/{results[200]['id']}").get_json()
    assert user["username"] == "user0201"
    credentials = {"username": "user0201", "password": PASSWORD}
    assert client.post("/api/v1/auth/login", json=credentials).status_code == 200


def test_a_file_with_200_passwords_is_imported_by_the_request(admin: SignedInClient) -> None:
    answer = ask(admin, with_passwords(200))

    assert (answer.status_code, answer.get_json()["created"]) == (200, 200)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("respond-async", 202),
        ("wait=10, Respond-Async", 202),
        ("respond-async; foo=bar", 202),
        ("wait=10", 200),
        ("handling=lenient", 200),
    ],
)
def test_prefer_respond_async_creates_a_job(
    admin: SignedInClient, header: str, status: int
) -> None:
    answer = ask(admin, [row_of("ada")], headers={"Prefer": header})

    assert answer.status_code == status
    applied = answer.headers.get("Preference-Applied")
    assert applied == ("respond-async" if status == 202 else None)


def test_a_job_writes_the_audit_rows_and_events_of_its_creator(
    app: Flask, services: Services, admin: SignedInClient
) -> None:
    ask(
        admin,
        [row_of("ada", roles=["moderator"]), row_of("bob")],
        headers=ASYNC | {"X-Correlation-ID": "case-9", "User-Agent": "tester/1"},
    )

    advance(app, services)

    rows = audit_rows(app, action="user.imported")
    assert [(r.actor_username, r.actor_type, r.correlation_id, r.user_agent) for r in rows] == [
        ("boss", "user", "case-9", "tester/1")
    ] * 2
    created = events(app, type_="user.created")[-2:]
    assert [event.data["username"] for event in created] == ["ada", "bob"]


def test_a_dry_run_returns_results_and_changes_nothing(
    app: Flask, services: Services, admin: SignedInClient, make_user: MakeUser
) -> None:
    make_user("user0003")
    rows = with_passwords(300)
    rows[299] = row_of("user0001", password=PASSWORD)

    location = ask(admin, rows, dry_run="true").headers["Location"]
    advance(app, services)

    job = admin.get(location).get_json()
    assert (job["state"], job["dry_run"], job["created"], job["failed"]) == ("done", True, 298, 2)
    refused = [r for r in all_results(admin, location) if r["status"] == "error"]
    assert [(r["row"], r["code"]) for r in refused] == [
        (3, "username_taken"),
        (300, "username_taken"),
    ]
    assert audit_rows(app, action="user.imported") == []
    # Kept for an hour, so that the console can import the rows of a check.
    assert counted(app, ImportBatch) == 2


def test_a_dry_run_continued_by_another_worker_finds_earlier_names(
    app: Flask, services: Services, admin: SignedInClient
) -> None:
    rows = [*with_passwords(250), row_of("user0001"), row_of("new", email="user0002@example.com")]
    location = ask(admin, rows, dry_run="true").headers["Location"]
    advance(app, services, batches=1)

    other = another_worker(services)
    with app.app_context():
        while other.advance():
            pass

    assert admin.get(location).get_json()["state"] == "done"
    refused = [r["code"] for r in all_results(admin, location) if r["status"] == "error"]
    assert refused == ["username_taken", "email_taken"]


def test_rejected_rows_have_their_errors(
    app: Flask, services: Services, admin: SignedInClient
) -> None:
    rows = [row_of("ada"), row_of("x"), {"username": "bob", "email": 7, "odd": {"deep": [1]}}]

    location = ask(admin, rows, headers=ASYNC).headers["Location"]
    advance(app, services)

    results = all_results(admin, location)
    assert [result["status"] for result in results] == ["created", "error", "error"]
    assert results[1]["errors"][0]["field"] == "username"
    assert {error["field"] for error in results[2]["errors"]} == {"email", "odd"}


def test_results_come_in_pages(app: Flask, services: Services, admin: SignedInClient) -> None:
    other = ask(admin, [row_of("zoe")], headers=ASYNC).headers["Location"]
    location = ask(admin, [row_of(f"u{n:03}") for n in range(25)], headers=ASYNC).headers[
        "Location"
    ]
    advance(app, services)

    page = admin.get(f"{location}/results", query={"page": "2", "page_size": "10"}).get_json()

    assert [item["row"] for item in page["items"]] == list(range(11, 21))
    assert (page["total"], page["pages"], page["total_is_exact"]) == (25, 3, True)
    assert len(admin.get(f"{other}/results").get_json()["items"]) == 1
    refused = admin.get(f"{other}/results", query={"cursor": page["next_cursor"]})
    assert (refused.status_code, refused.get_json()["code"]) == (400, "invalid_cursor")


def test_a_job_can_be_cancelled(app: Flask, services: Services, admin: SignedInClient) -> None:
    location = ask(admin, with_passwords(250)).headers["Location"]
    advance(app, services, batches=2)

    assert admin.delete(location).status_code == 204
    advance(app, services)

    job = admin.get(location).get_json()
    assert (job["state"], job["done"], job["created"]) == ("cancelled", 20, 20)
    assert job["finished_at"]
    assert len(all_results(admin, location)) == 20
    assert counted(app, ImportBatch) == 0
    assert admin.delete(location).status_code == 204


def test_an_import_that_has_ended_stays_done_when_it_is_cancelled(
    app: Flask, services: Services, admin: SignedInClient
) -> None:
    location = ask(admin, [row_of("ada")], headers=ASYNC).headers["Location"]
    advance(app, services)

    assert admin.delete(location).status_code == 204
    assert admin.get(location).get_json()["state"] == "done"


def test_an_unknown_import_is_404(admin: SignedInClient) -> None:
    unknown = "/api/v1/users/imports/01900000-0000-7000-8000-000000000000"

    for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/results")]:
        answer = admin.request(method, unknown + path)
        assert (answer.status_code, answer.get_json()["code"]) == (404, "not_found")
    assert admin.get("/api/v1/users/imports/nonsense").status_code == 404


def test_a_cancellation_during_a_batch_rolls_the_batch_back(
    app: Flask, services: Services, admin: SignedInClient
) -> None:
    location = ask(admin, with_passwords(201)).headers["Location"]

    worker = another_worker(services, while_hashing=lambda: admin.delete(location))
    with app.app_context():
        assert worker.advance() == 0

    assert admin.get(location).get_json()["done"] == 0
    assert admin.get("/api/v1/users/?search=user0").get_json()["total"] == 0


def test_a_batch_claimed_by_another_worker_is_imported_once(
    app: Flask, services: Services, admin: SignedInClient
) -> None:
    location = ask(admin, with_passwords(201)).headers["Location"]

    slow = another_worker(services, while_hashing=lambda: advance(app, services, batches=1))
    with app.app_context():
        assert slow.advance() == 0

    assert admin.get(location).get_json()["done"] == BATCH_PASSWORDS
    assert len(all_results(admin, location)) == BATCH_PASSWORDS
    assert len(audit_rows(app, action="user.imported")) == BATCH_PASSWORDS


@pytest.mark.parametrize("loss", ["suspended", "without the permission", "deleted"])
def test_the_rest_is_rejected_when_the_creator_loses_the_permission(
    app: Flask,
    services: Services,
    make_user: MakeUser,
    log_in: LogIn,
    loss: str,
) -> None:
    chief = log_in(make_user("chief", roles=["superadmin"]))
    boss = make_user("boss", roles=["admin"])
    location = ask(log_in(boss), with_passwords(250)).headers["Location"]
    advance(app, services, batches=1)

    if loss == "suspended":
        chief.post(f"/api/v1/users/{boss.id}/suspend")
    elif loss == "deleted":
        chief.delete(f"/api/v1/users/{boss.id}")
    else:
        chief.put(f"/api/v1/users/{boss.id}/roles", json={"roles": ["moderator"]})
    advance(app, services)

    job = chief.get(location).get_json()
    assert (job["state"], job["done"], job["created"], job["failed"]) == ("failed", 250, 10, 240)
    results = all_results(chief, location)
    assert [result["row"] for result in results] == list(range(1, 251))
    assert {result.get("code") for result in results[10:]} == {"permission_denied"}
    assert counted(app, ImportBatch) == 0


def test_a_suspension_during_a_batch_counts_for_that_batch(
    app: Flask, services: Services, make_user: MakeUser, log_in: LogIn
) -> None:
    chief = log_in(make_user("chief", roles=["superadmin"]))
    boss = make_user("boss", roles=["admin"])
    location = ask(log_in(boss), with_passwords(201)).headers["Location"]

    worker = another_worker(
        services, while_hashing=lambda: chief.post(f"/api/v1/users/{boss.id}/suspend")
    )
    with app.app_context():
        worker.advance()

    job = chief.get(location).get_json()
    assert (job["state"], job["created"], job["failed"]) == ("failed", 0, 201)


def test_roles_are_checked_against_the_current_permissions_of_the_creator(
    app: Flask, services: Services, make_user: MakeUser, log_in: LogIn
) -> None:
    chief = log_in(make_user("chief", roles=["superadmin"]))
    importers = {"name": "importers", "permissions": ["users:import"]}
    chief.post("/api/v1/roles/", json=importers)
    boss = make_user("boss", roles=["admin"])
    rows = [{**row, "roles": ["moderator"]} for row in with_passwords(201)]
    location = ask(log_in(boss), rows).headers["Location"]
    advance(app, services, batches=1)

    chief.put(f"/api/v1/users/{boss.id}/roles", json={"roles": ["importers"]})
    advance(app, services)

    job = chief.get(location).get_json()
    assert (job["state"], job["created"], job["failed"]) == ("done", 10, 191)
    assert all_results(chief, location)[-1]["code"] == "permission_denied"


@pytest.mark.thorough
def test_rows_are_stored_encrypted_and_deleted_with_their_batch(
    app: Flask, services: Services, admin: SignedInClient
) -> None:
    ask(admin, with_passwords(201))
    table = table_of(ImportBatch)

    with app.app_context(), reading() as connection:
        stored = b"".join(connection.scalars(select(table.c.sealed)))
    assert b"user0001" not in stored and PASSWORD.encode() not in stored

    before = counted(app, ImportBatch)
    advance(app, services, batches=1)
    assert counted(app, ImportBatch) == before - 1
    advance(app, services)
    assert counted(app, ImportBatch) == 0


def test_unreadable_rows_end_the_job(app: Flask, services: Services, admin: SignedInClient) -> None:
    location = ask(admin, [row_of("ada"), row_of("bob")], headers=ASYNC).headers["Location"]
    table = table_of(ImportBatch)
    with app.app_context(), transaction() as session:
        session.execute(update(table).values(sealed=b"\x01damaged"))

    advance(app, services)

    assert admin.get(location).get_json()["state"] == "failed"
    assert [result["code"] for result in all_results(admin, location)] == ["unreadable"] * 2


def test_imports_share_the_worker(app: Flask, services: Services, admin: SignedInClient) -> None:
    """A small file does not wait for thousands of passwords."""
    ask(admin, with_passwords(300))
    small = ask(admin, [row_of("ada")], headers=ASYNC).headers["Location"]

    advance(app, services, batches=5)

    assert admin.get(small).get_json()["created"] == 1


def test_an_old_import_is_deleted_with_its_results(
    app: Flask, services: Services, admin: SignedInClient, clock: ManualClock
) -> None:
    ask(admin, [row_of("ada"), row_of("bob")], headers=ASYNC)
    advance(app, services)

    clock.advance(days=29)
    _clean_up(app, clock)
    assert counted(app, ImportJob) == 1

    clock.advance(days=2)
    _clean_up(app, clock)
    assert (counted(app, ImportJob), counted(app, ImportedRow)) == (0, 0)


def _clean_up(app: Flask, clock: ManualClock) -> None:
    with app.app_context():
        while CleanUp(clock).delete_due():
            pass


def test_ignored_columns_are_reported(
    app: Flask, services: Services, admin: SignedInClient
) -> None:
    answer = ask(admin, [row_of("ada", id="x", created_at=None)], headers=ASYNC)

    assert answer.get_json()["ignored_columns"] == ["id", "created_at"]


def test_a_file_without_rows_is_done_at_once(
    app: Flask, services: Services, admin: SignedInClient
) -> None:
    location = ask(admin, [], headers=ASYNC).headers["Location"]
    advance(app, services)

    assert admin.get(location).get_json()["state"] == "done"


def test_metrics_count_unfinished_imports(
    app: Flask, services: Services, admin: SignedInClient, clock: ManualClock
) -> None:
    ask(admin, with_passwords(201))
    ask(admin, [row_of("ada")], headers=ASYNC)
    advance(app, services, batches=1)

    with app.app_context(), reading() as connection:
        assert count_unfinished(connection, jobs_table) == {"queued": 1, "running": 1}
    assert sample(JsonClient(app), "imports_unfinished", state="queued") == 1


def test_a_dry_run_of_thousands_is_done_in_a_few_large_batches(
    app: Flask, services: Services, admin: SignedInClient
) -> None:
    location = ask(admin, with_passwords(1000), dry_run="true").headers["Location"]

    advance(app, services, batches=5)

    job = admin.get(location).get_json()
    assert (job["state"], job["created"]) == ("done", 1000)
