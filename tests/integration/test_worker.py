"""The worker: waiting work is done, by one worker, even if other servers are unavailable."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import kombu
import pytest
from flask import Flask
from sqlalchemy import text

from tests.support.facts import audit_rows, events
from tests.support.gunicorn import REPOSITORY, GunicornService, add_administrator
from tests.support.mailbox import Mailbox
from tests.support.polling import wait_until
from tests.support.proxy import proxy_to, url_through
from tests.support.users import PASSWORD, LogIn, MakeUser
from userapi.cleanup import CleanUp
from userapi.clock import ManualClock
from userapi.infrastructure.database import db
from userapi.wiring.services import Services
from userapi.worker import Task, Worker, build_worker


@contextmanager
def working(app: Flask) -> Iterator[Worker]:
    services: Services = app.extensions["userapi"]
    with app.app_context():
        worker = build_worker(app, services)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


@contextmanager
def consuming(url: str, exchange: str) -> Iterator[list[dict[str, Any]]]:
    """Collect everything that is published, as another service would."""
    received: list[dict[str, Any]] = []
    done = threading.Event()
    library: Any = kombu  # It has no annotations.
    topic = library.Exchange(exchange, type="topic", durable=True)
    with library.Connection(url) as connection:
        queue = library.Queue("", topic, routing_key="#", exclusive=True, auto_delete=True)

        def take(body: Any, message: Any) -> None:
            received.append(json.loads(message.body))
            message.ack()

        with connection.Consumer([queue], callbacks=[take], accept=None, no_ack=False):

            def drain() -> None:
                while not done.is_set():
                    try:
                        connection.drain_events(timeout=0.2)
                    except TimeoutError:
                        continue

            thread = threading.Thread(target=drain)
            thread.start()
            try:
                yield received
            finally:
                done.set()
                thread.join(10)


def test_events_reach_a_consumer_in_order_and_as_cloudevents(
    make_app: Callable[..., Flask],
    make_user: MakeUser,
    log_in: LogIn,
    rabbitmq_url: str,
    rabbitmq_exchange: str,
) -> None:
    app = make_app(RABBITMQ_URL=rabbitmq_url, RABBITMQ_EXCHANGE=rabbitmq_exchange)
    with consuming(rabbitmq_url, rabbitmq_exchange) as received, working(app):
        robin = make_user("robin")
        boss = log_in(make_user("boss", roles=["admin"]))
        boss.post(f"/api/v1/users/{robin.id}/suspend", headers={"X-Correlation-ID": "case-7"})

        wait_until(lambda: len(received) == 4)

    about_robin = [e for e in received if e["subject"] == robin.id]
    assert [e["type"] for e in about_robin] == ["user.created", "user.suspended"]
    suspended = about_robin[1]
    assert suspended["specversion"] == "1.0"
    assert suspended["correlationid"] == "case-7"
    assert suspended["data"]["status"] == "suspended"
    assert int(about_robin[0]["sequence"]) < int(suspended["sequence"])
    wait_until(lambda: all(e.sent_at is not None for e in events(app)))


@pytest.mark.thorough
def test_events_wait_while_the_broker_is_away_and_go_out_when_it_is_back(
    make_app: Callable[..., Flask],
    make_user: MakeUser,
    rabbitmq_url: str,
    rabbitmq_exchange: str,
) -> None:
    with proxy_to(rabbitmq_url) as proxy:
        url = url_through(proxy, rabbitmq_url)
        app = make_app(RABBITMQ_URL=url, RABBITMQ_EXCHANGE=rabbitmq_exchange)
        proxy.refuse()
        with working(app):
            make_user("robin")
            time.sleep(1.5)
            assert [e.sent_at for e in events(app)] == [None]

            proxy.pass_on()

            wait_until(lambda: all(e.sent_at is not None for e in events(app)))
    assert all(e.parked_at is None for e in events(app))


@pytest.mark.both_databases
def test_mails_suspensions_seals_user_counts_and_heartbeats_are_processed(
    app: Flask, make_user: MakeUser, log_in: LogIn, mailbox: Mailbox, clock: ManualClock
) -> None:
    robin = make_user("robin")
    chief = make_user("boss", roles=["superadmin"])
    boss = log_in(chief)
    until = (clock.now() + timedelta(hours=1)).isoformat()
    boss.post("/api/v1/users/", json={"username": "ada", "email": "ada@example.com"})
    boss.post(f"/api/v1/users/{robin.id}/suspend", json={"until": until})
    clock.advance(hours=1, seconds=1)
    before = len(list(mailbox.folder.glob("*.eml")))

    with working(app):
        wait_until(lambda: len(list(mailbox.folder.glob("*.eml"))) == before + 1)
        wait_until(lambda: len(audit_rows(app, action="user.activated")) == 1)
        wait_until(lambda: _count(app, "audit_unsealed") == 0)
        wait_until(lambda: _count(app, "tally_changes") == 0)
        wait_until(lambda: _count(app, "worker_heartbeats") == 1)

    shown = log_in(chief).get("/api/v1/health/detailed").get_json()["components"]["worker"]
    assert shown["last_seen"].endswith("Z")


def _count(app: Flask, table: str) -> int:
    with app.app_context():
        count = int(db.session.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one())
        db.session.rollback()
    return count


@pytest.mark.thorough
def test_a_failing_task_delays_no_other_and_is_retried(app: Flask) -> None:
    attempts: list[int] = []
    others: list[int] = []

    def fail_twice() -> int:
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionRefusedError
        return 0

    def count() -> int:
        others.append(1)
        return 0

    url = app.extensions["userapi"].settings.database_url
    worker = Worker(
        app,
        [
            Task(name="failing", run=fail_twice, interval_seconds=0.01),
            Task(name="other", run=count, interval_seconds=0.01),
        ],
        notifications_url=url,
    )
    worker.start()
    wait_until(lambda: len(attempts) >= 3 and len(others) >= 5)
    worker.stop()


@pytest.mark.both_databases
def test_what_has_expired_is_cleared_away(
    app: Flask, make_user: MakeUser, log_in: LogIn, clock: ManualClock
) -> None:
    boss = log_in(make_user("boss", roles=["admin"]))
    new = {"username": "ada", "email": "ada@example.com", "password": "granite-otter-57-teapot"}
    boss.post("/api/v1/users/", json=new, headers={"Idempotency-Key": "k"})
    boss.post("/api/v1/auth/login", json={"username": "ada", "password": "wrong-password-1"})
    boss.post("/api/v1/auth/logout")
    cleaner = CleanUp(clock)
    tables = ("idempotency_keys", "login_attempts", "user_sessions")
    with app.app_context():
        assert cleaner.delete_due() == 0
    assert [_count(app, table) for table in tables] == [1, 1, 1]

    clock.advance(days=40)
    with app.app_context():
        assert cleaner.delete_due() == 3

    assert [_count(app, table) for table in tables] == [0, 0, 0]


def test_the_command_finishes_and_ends_on_sigterm(
    make_database: Callable[[str], Any],
) -> None:
    service = GunicornService(
        {"ENVIRONMENT": "testing", "DATABASE_URL": make_database("worker").url}
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", "worker"],
        cwd=REPOSITORY,
        env=service.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        # Tasks may log something before it.
        with process.stdout as output:
            started = any("worker.started" in line for line in output)
            process.send_signal(signal.SIGTERM)
            rest = output.read()
        process.wait(120)
    finally:
        process.kill()
        process.wait()
        service.__exit__()

    assert started
    assert process.returncode == 0
    assert "worker.stopped" in rest
    assert "Traceback" not in rest


def test_in_the_embedded_default_the_service_sends_its_own_mails() -> None:
    environment = {"ENVIRONMENT": "testing", "PASSWORD_HASH_ROUNDS": "4"}
    with GunicornService(environment, migrated=False) as service:
        add_administrator(service, PASSWORD)
        asked = subprocess.run(
            [
                "curl",
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                service.base_url + "/api/v1/auth/reset-password",
                "-H",
                "Content-Type: application/json",
                "-d",
                '{"email":"admin@example.com"}',
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        folder = service.directory / "instance" / "mail"

        wait_until(lambda: len(list(folder.glob("*.eml"))) == 1)

        assert asked.stdout == "202"
        assert service.stop() == 0
        assert "Traceback" not in service.log
        service.start()
