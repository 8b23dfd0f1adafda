"""Imports by real workers: several concurrently, and workers that are killed during a file."""

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests.support.deployments import Backend, Deployment
from tests.support.facts import audit_rows, events
from tests.support.polling import wait_until
from tests.support.users import LogIn, MakeUser, SignedInClient
from tests.support.worker_process import WorkerProcess

# Imports continue by the same code on both databases; only their locks differ.
on_both = pytest.mark.parametrize(
    "backend",
    [Backend.POSTGRESQL, pytest.param(Backend.SQLITE, marks=pytest.mark.slow)],
    ids=str,
    indirect=True,
)

ROWS = 80
PASSWORD = "marble-heron-58-lantern"
# A hash of a few hundredths of a second: a file takes long enough to be interrupted.
HASHING = {"PASSWORD_HASH_ROUNDS": "8"}


@pytest.fixture
def admin(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["admin"]))


@pytest.fixture
def worker_process(deployment: Deployment, tmp_path: Path) -> Iterator[Callable[[], WorkerProcess]]:
    """Return what starts a worker as a process of its own."""
    started: list[WorkerProcess] = []

    def start() -> WorkerProcess:
        environment = {
            **deployment.environment,
            **HASHING,
            "INSTANCE_DIR": str(deployment.instance_dir),
        }
        worker = WorkerProcess(environment, tmp_path / f"worker-{len(started)}.log")
        started.append(worker)
        worker.wait_until_started()
        return worker

    yield start
    for worker in started:
        if worker.is_running:
            worker.end(signal.SIGKILL)


def ask(client: SignedInClient) -> str:
    rows = [
        {"username": f"u{n:03}", "email": f"u{n:03}@example.com", "password": PASSWORD}
        for n in range(1, ROWS + 1)
    ]
    answer = client.post(
        "/api/v1/users/import",
        data="\n".join(map(json.dumps, rows)).encode(),
        headers={"Content-Type": "application/x-ndjson", "Prefer": "respond-async"},
    )
    assert answer.status_code == 202
    location: str = answer.headers["Location"]
    return location


def progress(client: SignedInClient, location: str) -> dict[str, Any]:
    job: dict[str, Any] = client.get(location).get_json()
    return job


def wait_for_rows(client: SignedInClient, location: str, count: int) -> None:
    wait_until(lambda: progress(client, location)["done"] >= count, seconds=90)


def assert_each_row_once(app: Flask, client: SignedInClient, location: str) -> None:
    job = progress(client, location)
    assert (job["state"], job["done"], job["created"], job["failed"]) == ("done", ROWS, ROWS, 0)
    page = client.get(f"{location}/results", query={"page_size": "100"}).get_json()
    rows = [item["row"] for item in page["items"]]
    assert rows == list(range(1, ROWS + 1))
    told = Counter(event.data["username"] for event in events(app, type_="user.created"))
    del told["boss"]
    assert told == {f"u{n:03}": 1 for n in range(1, ROWS + 1)}
    assert len(audit_rows(app, action="user.imported")) == ROWS


@pytest.mark.thorough
@on_both
def test_a_worker_that_is_killed_is_followed_by_one_that_continues(
    app: Flask, admin: SignedInClient, worker_process: Callable[[], WorkerProcess]
) -> None:
    location = ask(admin)
    for done in (10, 40):
        worker = worker_process()
        wait_for_rows(admin, location, done)
        worker.end(signal.SIGKILL)

    worker_process()

    wait_until(lambda: progress(admin, location)["state"] == "done", seconds=90)
    assert_each_row_once(app, admin, location)


@pytest.mark.thorough
@pytest.mark.both_databases
def test_two_workers_never_do_one_import_at_once(
    app: Flask, admin: SignedInClient, worker_process: Callable[[], WorkerProcess]
) -> None:
    worker_process(), worker_process()

    location = ask(admin)

    wait_until(lambda: progress(admin, location)["state"] == "done", seconds=90)
    assert_each_row_once(app, admin, location)


@pytest.mark.thorough
@on_both
def test_a_worker_that_is_stopped_finishes_its_batch(
    app: Flask, admin: SignedInClient, worker_process: Callable[[], WorkerProcess]
) -> None:
    location = ask(admin)
    worker = worker_process()
    wait_for_rows(admin, location, 10)

    assert worker.end(signal.SIGTERM) == 0

    done = progress(admin, location)["done"]
    assert done % 10 == 0
    assert len(audit_rows(app, action="user.imported")) == done
