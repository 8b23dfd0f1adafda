"""The loop of the worker: each task runs independently, through outages, until the worker stops."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.deployments import Deployment
from tests.support.facts import events
from tests.support.guardian import guardian
from tests.support.gunicorn import (
    REPOSITORY,
    GunicornService,
    add_administrator,
    service_environment,
)
from tests.support.metrics import sample
from tests.support.polling import least_seconds, wait_until
from tests.support.proxy import FaultProxy
from tests.support.users import PASSWORD, MakeUser
from userapi.errors import Unavailable
from userapi.wiring.services import Services
from userapi.worker import Task, Worker, tasks_of
from userapi_client import Client

pytestmark = pytest.mark.thorough


def eventually(is_so: Callable[[], Any]) -> Any:
    """Wait until something is so, and return it."""
    found: list[Any] = []

    def holds() -> bool:
        found[:] = [is_so()]
        return bool(found[0])

    wait_until(holds)
    return found[0]


def proxied(url: str, proxy: FaultProxy) -> str:
    parts = urlsplit(url)
    account = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{account}@{proxy.host}:{proxy.port}"))


@pytest.fixture
def run() -> Iterator[Callable[..., Worker]]:
    """Start a worker with these tasks; it stops with the test."""
    workers: list[Worker] = []

    def start(app: Flask, *tasks: Task) -> Worker:
        worker = _worker(app, *tasks)
        worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.stop()


def _worker(app: Flask, *tasks: Task) -> Worker:
    url = app.extensions["userapi"].settings.database_url
    return Worker(app, tasks, notifications_url=url)


class Counted:
    """The work of a task: counts its calls, and behaves as a test defines."""

    def __init__(self, result: Callable[[int], int] = lambda calls: 0) -> None:
        self.calls = 0
        self._result = result

    def __call__(self) -> int:
        self.calls += 1
        return self._result(self.calls)


def test_every_duty_of_the_worker_is_a_task(services: Services) -> None:
    assert {task.name for task in tasks_of(services)} == {
        "seals",
        "bulk",
        "clean-up",
        "heartbeat",
        "imports",
        "key-expiry",
        "mail",
        "suspensions",
        "user-counts",
    }


def test_with_a_broker_the_relay_is_a_task_too(make_app: Callable[..., Flask]) -> None:
    app = make_app(RABBITMQ_URL="amqp://somebody:something@127.0.0.1:1/")

    assert "relay" in {task.name for task in tasks_of(app.extensions["userapi"])}


def test_more_work_than_a_batch_continues_immediately(
    app: Flask, run: Callable[..., Worker]
) -> None:
    work = Counted(lambda calls: 1 if calls < 50 else 0)

    run(app, Task(name="much", run=work, interval_seconds=60))

    eventually(lambda: work.calls == 50)


def test_a_task_that_hangs_holds_up_no_other(app: Flask, run: Callable[..., Worker]) -> None:
    release = threading.Event()
    hanging = Counted(lambda calls: 0 if release.wait(30) else 0)
    other = Counted()

    run(
        app,
        Task(name="hanging", run=hanging, interval_seconds=0.01),
        Task(name="other", run=other, interval_seconds=0.01),
    )
    eventually(lambda: other.calls > 20)

    assert hanging.calls == 1
    release.set()


def test_a_failing_task_runs_less_often(app: Flask, run: Callable[..., Worker]) -> None:
    def fail(calls: int) -> int:
        if calls <= 3:
            raise Unavailable()
        return 0

    work = Counted(fail)
    begun = time.monotonic()

    run(app, Task(name="failing", run=work, interval_seconds=60))

    eventually(lambda: work.calls == 4)
    # Half of 0.5, 1 and 2 seconds at least.
    assert time.monotonic() - begun > 1.7


def test_a_fault_of_ours_ends_no_task(app: Flask, run: Callable[..., Worker]) -> None:
    def fail(calls: int) -> int:
        if calls == 1:
            raise ZeroDivisionError
        return 0

    work = Counted(fail)

    run(app, Task(name="wrong", run=work, interval_seconds=0.01))

    eventually(lambda: work.calls > 3)


def test_a_notification_ends_the_wait(
    app: Flask, make_user: MakeUser, run: Callable[..., Worker]
) -> None:
    work = Counted()
    run(app, Task(name="woken", run=work, interval_seconds=600, channel="userapi_outbox"))
    # Once at the start, once more when the listener is there.
    eventually(lambda: work.calls == 2)

    make_user("ada")

    eventually(lambda: work.calls == 3)


def test_the_listener_comes_back_after_an_outage_of_the_database(
    make_app: Callable[..., Flask],
    deployment: Deployment,
    make_user: MakeUser,
    postgresql_url: str,
    run: Callable[..., Worker],
) -> None:
    parts = urlsplit(postgresql_url)
    with FaultProxy(parts.hostname or "", parts.port or 5432) as proxy:
        app = make_app(DATABASE_URL=proxied(deployment.database.url, proxy))
        work = Counted()
        worker = run(
            app, Task(name="woken", run=work, interval_seconds=600, channel="userapi_outbox")
        )
        eventually(lambda: work.calls == 2)
        proxy.refuse()
        time.sleep(1)
        proxy.pass_on()
        eventually(lambda: work.calls == 3)  # It may have missed something.

        make_user("ada")

        eventually(lambda: work.calls == 4)
        worker.stop()


def test_a_stop_waits_for_what_is_being_done(app: Flask) -> None:
    begun, finish = threading.Event(), threading.Event()
    done: list[str] = []

    def work() -> int:
        begun.set()
        finish.wait(10)
        done.append("whole")
        return 1

    worker = _worker(app, Task(name="slow", run=work, interval_seconds=60))
    worker.start()
    begun.wait(10)
    threading.Timer(0.2, finish.set).start()

    assert worker.stop()
    assert done == ["whole"]


def test_a_stop_does_not_wait_for_ever(app: Flask) -> None:
    finish = threading.Event()
    worker = _worker(app, Task(name="stuck", run=lambda: int(finish.wait(30)), interval_seconds=60))
    worker.start()

    assert not worker.stop(within_seconds=0.1)
    finish.set()


class WorkerProcess:
    """`flask worker` as a process of its own."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flask", "worker"],
                cwd=REPOSITORY,
                env=service_environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        guardian.watch(self.process.pid, ended_by=signal.SIGKILL)

    def end(self, signal_number: signal.Signals) -> int:
        self.process.send_signal(signal_number)
        code = self.process.wait(30)
        guardian.release(self.process.pid)
        return code


@pytest.fixture
def worker_process(
    deployment: Deployment, tmp_path: Path
) -> Iterator[Callable[..., WorkerProcess]]:
    started: list[WorkerProcess] = []

    def start(**environment: str) -> WorkerProcess:
        made = WorkerProcess(
            {
                **deployment.environment,
                "INSTANCE_DIR": str(deployment.instance_dir),
                **environment,
            },
            tmp_path / f"worker-{len(started)}.log",
        )
        started.append(made)
        eventually(lambda: "worker.started" in made.log.read_text())
        return made

    yield start
    for one in started:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)


def test_ctrl_c_ends_the_command_in_order(
    worker_process: Callable[..., WorkerProcess],
) -> None:
    worker = worker_process()

    assert worker.end(signal.SIGINT) == 0
    assert "worker.stopped" in worker.log.read_text()


def test_events_reach_rabbitmq_through_the_command(
    app: Flask,
    worker_process: Callable[..., WorkerProcess],
    make_user: MakeUser,
    rabbitmq_url: str,
    rabbitmq_exchange: str,
) -> None:
    worker = worker_process(RABBITMQ_URL=rabbitmq_url, RABBITMQ_EXCHANGE=rabbitmq_exchange)

    def publish_one() -> None:
        make_user(f"ada-{len(events(app))}")
        eventually(lambda: all(row.sent_at for row in events(app)))

    assert least_seconds(publish_one, below=3) < 3
    assert sample(JsonClient(app), "events_published_total") == len(events(app))
    assert worker.end(signal.SIGTERM) == 0


def test_a_second_command_takes_over_when_the_first_is_killed(
    app: Flask,
    worker_process: Callable[..., WorkerProcess],
    make_user: MakeUser,
    rabbitmq_url: str,
    rabbitmq_exchange: str,
) -> None:
    broker = {"RABBITMQ_URL": rabbitmq_url, "RABBITMQ_EXCHANGE": rabbitmq_exchange}
    first = worker_process(**broker)
    eventually(lambda: "relay.took_over" in first.log.read_text())
    second = worker_process(**broker)

    first.end(signal.SIGKILL)
    make_user("ada")

    eventually(lambda: all(row.sent_at for row in events(app)))
    assert "relay.took_over" in second.log.read_text()


def test_inside_the_service_one_process_of_all_works(tmp_path: Path) -> None:
    """Killed, it is followed by another."""
    environment = {
        "ENVIRONMENT": "testing",
        "PASSWORD_HASH_ROUNDS": "4",
        "WEB_CONCURRENCY": "3",
        "MAIL_DIR": str(tmp_path / "mail"),
    }
    with GunicornService(environment) as service:
        eventually(lambda: service.log.count("worker.started") == 1)
        _ask_for_a_mail(service, "ada")
        eventually(lambda: len(list(tmp_path.glob("mail/*.eml"))) == 1)

        for pid in service.worker_pids:
            os.kill(pid, signal.SIGKILL)

        eventually(lambda: service.log.count("worker.started") == 2)
        _ask_for_a_mail(service, "bob")
        eventually(lambda: len(list(tmp_path.glob("mail/*.eml"))) == 2)
        assert service.stop() == 0
        assert "worker.stopped" in service.log


def _ask_for_a_mail(service: GunicornService, name: str) -> None:
    add_administrator(service, PASSWORD, username=name)
    with Client(service.base_url) as client:
        client.auth.request_password_reset(f"{name}@example.com")


def test_making_an_application_starts_nothing(
    make_app: Callable[..., Flask],
) -> None:
    before = set(threading.enumerate())

    make_app(WORKER_EMBEDDED="true")

    # Threads of earlier tests may end meanwhile.
    assert set(threading.enumerate()) - before == set()
