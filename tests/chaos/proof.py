"""The proof that nothing is lost.

Threads create users over HTTP, each with an Idempotency-Key, and change each of them; meanwhile
RabbitMQ is restarted, and Gunicorn's workers and the worker that publishes are killed. Afterwards
the records must match: what was acknowledged exists, once, with its audit row, and a consumer has
every event, in order for each user.
"""

import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import amqp
import psycopg2
from kombu.connection import Connection as Broker

from tests.support.guardian import send
from tests.support.gunicorn import GunicornService
from tests.support.servers import PostgresServer, RabbitmqServer
from tests.support.service_clients import PASSWORD, Tally, persistent_client, until_answered
from tests.support.worker_process import WorkerProcess
from userapi_client import Client, Login, Problem, UserApiError

EXCHANGE = "user_events"
QUEUE = "everything"
SETTLED_WITHIN_SECONDS = 120.0
BROKER_AWAY_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The numbers of requests and of injected faults."""

    users: int = 500
    threads: int = 8
    seconds: float = 45.0
    broker_restarts: int = 3
    kill_every_seconds: float = 2.0


@dataclass(slots=True, kw_only=True)
class Figures:
    """The results, and the faults that were found."""

    seconds: float = 0.0
    users_acknowledged: int = 0
    requests: int = 0
    answers_lost: int = 0
    answered_503: int = 0
    answers_replayed: int = 0
    gunicorn_workers_killed: int = 0
    relays_killed: int = 0
    broker_restarts: int = 0
    events: int = 0
    messages_received: int = 0
    duplicates: int = 0
    losses: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            (
                f"{name.replace('_', ' '):24} {value:>10.1f}"
                if isinstance(value, float)
                else f"{name.replace('_', ' '):24} {value:>10}"
            )
            for name, value in asdict(self).items()
            if name != "faults"
        ]
        return "\n".join([*lines, *(f"FAULT: {fault}" for fault in self.faults)])


class Chaos:
    """The service with its servers, and everything that happens to it."""

    def __init__(self, directory: Path, plan: Plan) -> None:
        self._plan = plan
        self._figures = Figures()
        self._tally = Tally()
        self._over = threading.Event()
        self._acknowledged: dict[int, str] = {}
        self._stack = ExitStack()
        for name in ("postgresql", "rabbitmq"):
            (directory / name).mkdir(parents=True)
        self._directory = directory
        self._database = PostgresServer(directory / "postgresql")
        self._broker = RabbitmqServer(directory / "rabbitmq")
        self._workers: list[WorkerProcess] = []

    def run(self) -> Figures:
        """Run the proof; return its results."""
        with self._stack:
            self._stack.enter_context(self._database)
            self._stack.enter_context(self._broker)
            # Before anything is published: an exchange keeps nothing for a queue that comes later.
            self._declare_queue()
            service = self._serve()
            begun = time.monotonic()
            self._make_users_under_fire(service)
            self._settle()
            self._figures.seconds = time.monotonic() - begun
            self._take_stock()
            self._balance()
        return self._figures

    @property
    def _environment(self) -> Mapping[str, str]:
        return {
            "ENVIRONMENT": "testing",
            "SECRET_KEY": "chaos-signs-cursors-with-this-4fZq81Lw0c",
            "JWT_SECRET_KEY": "chaos-signs-tokens-with-this-9sXe37Kd5m",
            "PASSWORD_PEPPER": "chaos-hashes-passwords-with-this-2bTn64Rj",
            "ENCRYPTION_KEY": "chaos-encrypts-with-this-7hRw52Jx9pQe",
            "PASSWORD_HASH_ROUNDS": "4",
            "RATE_LIMIT_ENABLED": "false",
            "DATABASE_URL": self._database.url,
            "RABBITMQ_URL": self._broker.url,
            "RABBITMQ_EXCHANGE": EXCHANGE,
            "WEB_CONCURRENCY": "2",
            "INSTANCE_DIR": str(self._directory / "instance"),
        }

    def _serve(self) -> GunicornService:
        service = GunicornService(self._environment)
        for arguments, stdin in (
            (("db", "upgrade"), ""),
            (
                ("users", "create-admin", "--username", "admin", "--email", "admin@example.com")
                + ("--password-stdin",),
                PASSWORD + "\n",
            ),
        ):
            done = service.flask(*arguments, stdin=stdin)
            if done.returncode != 0:
                raise RuntimeError(done.stderr)
        self._stack.enter_context(service)
        for number in (1, 2):
            worker = WorkerProcess(self._environment, self._directory / f"worker-{number}.log")
            self._workers.append(worker)
            self._stack.callback(self._end, worker)
            worker.wait_until_started()
        return service

    def _end(self, worker: WorkerProcess) -> None:
        if worker.is_running:
            worker.end(signal.SIGKILL)

    # What is done

    def _make_users_under_fire(self, service: GunicornService) -> None:
        client = persistent_client(service.base_url, Login("admin", PASSWORD), self._tally)
        self._stack.callback(client.close)
        client.auth.me()
        begun = time.monotonic()
        fires = [
            threading.Thread(target=self._kill_gunicorn_workers, args=(service,)),
            threading.Thread(target=self._restart_broker),
            threading.Thread(target=self._kill_relay),
        ]
        for fire in fires:
            fire.start()

        def make(number: int) -> None:
            # Spread over the time, so that every kill interrupts requests.
            due = begun + number * self._plan.seconds / self._plan.users
            time.sleep(max(0.0, due - time.monotonic()))
            self._live_through(client, number)

        try:
            with ThreadPoolExecutor(self._plan.threads) as pool:
                list(pool.map(make, range(self._plan.users)))
        finally:
            self._over.set()
            for fire in fires:
                fire.join()

    def _live_through(self, client: Client, number: int) -> None:
        name = f"user{number}"
        try:
            made = client.users.create(
                username=name,
                email=f"{name}@example.com",
                password=PASSWORD,
                idempotency_key=f"user-{number}",
            )
            self._acknowledged[number] = made.id
            client.users.change(made.id, lambda _: {"first_name": f"Name {number}"})
            _set_status(lambda: client.users.suspend(made.id, reason="chaos"))
            _set_status(lambda: client.users.activate(made.id))
        except UserApiError as exc:
            self._fault(f"{name}: {exc}")

    # What is done to it

    def _kill_gunicorn_workers(self, service: GunicornService) -> None:
        while not self._over.wait(self._plan.kill_every_seconds):
            pids = service.worker_pids
            if pids:
                send([random.choice(pids)], signal.SIGKILL)
                self._figures.gunicorn_workers_killed += 1

    def _restart_broker(self) -> None:
        for number in range(self._plan.broker_restarts):
            # At least a little is published before.
            if self._over.wait(self._plan.seconds / (4 * self._plan.broker_restarts)):
                return
            if number % 2:
                self._broker.kill()
            else:
                self._broker.stop()
            time.sleep(BROKER_AWAY_SECONDS)
            self._broker.start()
            self._figures.broker_restarts += 1

    def _kill_relay(self) -> None:
        self._over.wait(self._plan.seconds / 2)
        leader = next((w for w in self._workers if w.has_logged("relay.took_over")), None)
        if leader is None:
            self._fault("no worker publishes")
            return
        leader.end(signal.SIGKILL)
        self._figures.relays_killed += 1

    # What comes of it

    def _settle(self) -> None:
        deadline = time.monotonic() + SETTLED_WITHIN_SECONDS
        while self._count("SELECT COUNT(*) FROM outbox_events WHERE sent_at IS NULL"):
            if time.monotonic() > deadline:
                self._fault("the outbox is not empty")
                return
            time.sleep(0.2)

    def _declare_queue(self) -> None:
        with self._channel() as channel:
            channel.exchange_declare(EXCHANGE, "topic", durable=True, auto_delete=False)
            channel.queue_declare(QUEUE, durable=True, auto_delete=False)
            channel.queue_bind(QUEUE, EXCHANGE, "#")

    def _received(self) -> list[dict[str, Any]]:
        received = []
        with self._channel() as channel:
            while (message := channel.basic_get(QUEUE, no_ack=True)) is not None:
                received.append(json.loads(message.body))
        return received

    @contextmanager
    def _channel(self) -> Iterator[amqp.Channel]:
        broker = Broker(self._broker.url)  # type: ignore[no-untyped-call]
        try:
            yield broker.channel()  # type: ignore[no-untyped-call]
        finally:
            broker.release()  # type: ignore[no-untyped-call]

    def _take_stock(self) -> None:
        figures, tally = self._figures, self._tally
        figures.users_acknowledged = len(self._acknowledged)
        figures.requests = tally.requests
        figures.answers_lost = tally.lost_answers
        figures.answered_503 = tally.unavailable
        figures.answers_replayed = tally.replays

    def _balance(self) -> None:
        figures = self._figures
        acknowledged = set(self._acknowledged.values())
        users = self._column("SELECT id::text FROM users WHERE username <> 'admin'")
        audited = self._column(
            "SELECT target_id FROM audit_logs WHERE action = 'user.created'"
            " AND target_id NOT IN (SELECT id::text FROM users WHERE username = 'admin')"
        )
        if len(acknowledged) != self._plan.users:
            self._fault(f"{len(acknowledged)} of {self._plan.users} users were acknowledged")
        if acknowledged != set(users):
            self._fault(f"{len(acknowledged ^ set(users))} users do not fit what was acknowledged")
        if sorted(users) != sorted(audited):
            self._fault(f"{len(users)} users have {len(audited)} audit rows")
        received = self._received()
        counts = Counter(event["id"] for event in received)
        written = set(self._column("SELECT id::text FROM outbox_events"))
        figures.events = len(written)
        figures.messages_received = len(received)
        figures.duplicates = len(received) - len(counts)
        figures.losses = len(written - counts.keys()) + len(acknowledged - set(users))
        if figures.losses:
            self._fault(f"{figures.losses} are lost")
        if unknown := counts.keys() - written:
            self._fault(f"{len(unknown)} messages are of no event")
        self._check_order(received)

    def _check_order(self, received: list[dict[str, Any]]) -> None:
        seen: set[str] = set()
        newest: dict[str, int] = {}
        types: dict[str, list[str]] = {}
        for event in received:
            if event["id"] in seen:
                continue
            seen.add(event["id"])
            sequence = int(event["sequence"])
            if sequence < newest.get(event["subject"], 0):
                self._fault(f"{event['type']} of {event['subject']} came out of order")
            newest[event["subject"]] = sequence
            types.setdefault(event["subject"], []).append(event["type"])
        expected = ["user.created", "user.updated", "user.suspended", "user.activated"]
        for user_id in self._acknowledged.values():
            if types.get(user_id) != expected:
                self._fault(f"a consumer has {types.get(user_id)} of {user_id}")

    def _column(self, query: str) -> list[str]:
        connection = psycopg2.connect(self._database.url)
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                return [str(row[0]) for row in cursor.fetchall()]
        finally:
            connection.close()

    def _count(self, query: str) -> int:
        return int(self._column(query)[0])

    def _fault(self, text: str) -> None:
        self._figures.faults.append(text)


def _set_status(send: Callable[[], object]) -> None:
    """Change the status of a user. After a lost reply, that may have been done already."""
    try:
        until_answered(send)
    except Problem as problem:
        if problem.code != "invalid_status_transition":
            raise
