"""The trial: people and an administrator use the service while Redis and RabbitMQ are restarted.

The service runs as shipped with PostgreSQL, Redis and RabbitMQ, and with `flask worker`. The trial
passes when every request succeeds in the end, no event waits at the end, and nothing grows: the
memory and open files of the processes, connections, Redis keys, waiting events.
"""

import itertools
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.soak.samples import Growth, Sampler, count_in, files_of, keys_in, memory_of
from tests.support.gunicorn import GunicornService, add_administrator
from tests.support.servers import PostgresServer, RabbitmqServer, RedisServer, Server
from tests.support.service_clients import PASSWORD, Tally, persistent_client, until_answered
from tests.support.worker_process import WorkerProcess
from userapi_client import Client, Login

PEOPLE = 8
ADMINISTRATOR = "robin"
IMPORTED_ROWS = 20
SETTLED_WITHIN_SECONDS = 60.0
CONNECTIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name LIKE 'userapi%'"
)
WAITING = "SELECT count(*) FROM outbox_events WHERE sent_at IS NULL"
# By how much each measure may grow after its first third. Redis keys and waiting events go up and
# down; the others are constant except for pages that the allocator keeps.
ALLOWED = {
    "memory of a web worker, MiB": 6.0,
    "memory of the worker, MiB": 6.0,
    "files of the web workers": 10.0,
    "files of the worker": 5.0,
    "connections to PostgreSQL": 4.0,
    "keys in Redis": 40.0,
    "waiting events": 20.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long the trial takes, and how often something happens, in seconds."""

    seconds: float = 3600.0
    pause_seconds: float = 0.5
    log_in_every: float = 30.0
    change_every: float = 5.0
    import_every: float = 60.0
    restart_every: float = 120.0


@dataclass(slots=True, kw_only=True)
class Report:
    """What was measured, and what is wrong about it: nothing, if the trial passes."""

    done: Tally
    restarts: int
    growth: list[Growth]
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.done.requests} requests, {self.done.lost_answers} without a reply,"
                f" {self.done.unavailable} answered 503; {self.restarts} restarts of servers",
                f"{'':28} {'first':>9} {'last':>9} {'growth':>9} {'allowed':>9}",
                *(str(growth) for growth in self.growth),
                *(f"FAULT: {fault}" for fault in self.faults),
            ]
        )


def run_trial(directory: Path, plan: Plan) -> Report:
    """Run the trial on private servers below `directory` and return what it showed."""
    with ExitStack() as stack:
        for name in ("postgresql", "redis", "rabbitmq"):
            (directory / name).mkdir(parents=True)
        database = stack.enter_context(PostgresServer(directory / "postgresql"))
        store = stack.enter_context(RedisServer(directory / "redis"))
        broker = stack.enter_context(RabbitmqServer(directory / "rabbitmq"))
        service = GunicornService(
            {
                "ENVIRONMENT": "testing",
                "SECRET_KEY": "soak-signs-cursors-with-this-4fZq81Lw0cQ",
                "PASSWORD_PEPPER": "soak-hashes-passwords-with-this-2bTn64Rj",
                "PASSWORD_HASH_ROUNDS": "8",
                "RATE_LIMIT_ENABLED": "false",
                # Caches of tokens are full within the first third.
                "JWT_ACCESS_TOKEN_EXPIRE_MINUTES": "5",
                "DATABASE_URL": database.url,
                "REDIS_URL": store.url,
                "RABBITMQ_URL": broker.url,
                "WEB_CONCURRENCY": "2",
                "INSTANCE_DIR": str(directory / "instance"),
            }
        )
        migrated = service.flask("db", "upgrade")
        assert migrated.returncode == 0, migrated.stderr
        add_administrator(service, PASSWORD, username=ADMINISTRATOR)
        stack.enter_context(service)
        given = {name: value for name, value in service.environment.items() if name != "BIND"}
        worker = WorkerProcess(given, directory / "worker.log")
        worker.wait_until_started()
        measures: dict[str, Callable[[], float]] = dict(
            zip(
                ALLOWED,
                (
                    memory_of(lambda: service.worker_pids),
                    memory_of(lambda: [worker.process.pid]),
                    files_of(lambda: service.worker_pids),
                    files_of(lambda: [worker.process.pid]),
                    count_in(database.url, CONNECTIONS),
                    keys_in(store.url),
                    count_in(database.url, WAITING),
                ),
                strict=True,
            )
        )
        use = Use(service.base_url, plan)
        sampler = Sampler(measures)
        sampler.start()
        restarts = use.run([store, broker])
        sampler.stop()
        growth = [sampler.growth(name, allowed) for name, allowed in ALLOWED.items()]
        report = Report(done=use.tally, restarts=restarts, growth=growth, faults=use.faults)
        report.faults += [
            f"{grown.name}: grows by {grown.slope:.1f}"
            for grown in growth
            if grown.slope > grown.allowed
        ]
        if not _settles(measures["waiting events"]):
            report.faults.append("events still wait to be published")
    return report


def _settles(waiting: Callable[[], float]) -> bool:
    """Return whether all events are published within a while."""
    deadline = time.monotonic() + SETTLED_WITHIN_SECONDS
    while waiting() > 0:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


@dataclass(frozen=True, slots=True)
class Person:
    """A user of the trial."""

    id: str
    username: str


class Use:
    """Threads that use the service. A request that does not succeed in the end is a fault."""

    def __init__(self, base_url: str, plan: Plan) -> None:
        self.tally = Tally()
        self.faults: list[str] = []
        self._base_url = base_url
        self._plan = plan
        self._over = threading.Event()
        self._logging_in = threading.Lock()

    def run(self, servers: list[Server]) -> int:
        """Use the service for the time of the plan; return how often a server was restarted."""
        people = [self._new_person(number) for number in range(PEOPLE)]
        with ThreadPoolExecutor(len(people) + 2) as threads:
            work = [
                *(threads.submit(self._live, person) for person in people),
                threads.submit(self._change_roles, people),
                threads.submit(self._import),
            ]
            restarts = self._restart(servers)
            self._over.set()
        self.faults += [repr(done.exception()) for done in work if done.exception() is not None]
        return restarts

    def _restart(self, servers: list[Server]) -> int:
        """Restart the servers in turn until the time of the plan is over; return how often."""
        restarts, end = 0, time.monotonic() + self._plan.seconds
        for server in itertools.cycle(servers):
            time.sleep(self._plan.restart_every)
            if time.monotonic() + self._plan.restart_every > end:
                return restarts
            server.stop()
            server.start()
            restarts += 1
        raise AssertionError("unreachable")

    def _client(self, username: str) -> Client:
        """Return a client of a user that is logged in."""
        client = persistent_client(self._base_url, Login(username, PASSWORD), self.tally)
        until_answered(client.auth.me)
        return client

    def _administrator(self) -> Client:
        """Return a new client. Few may log in under one name at the same time."""
        with self._logging_in:
            return self._client(ADMINISTRATOR)

    def _new_person(self, number: int) -> Person:
        name = f"person-{number}"
        with self._administrator() as api:
            made = api.users.create(username=name, email=f"{name}@example.com", password=PASSWORD)
        return Person(made.id, name)

    def _live(self, person: Person) -> None:
        """Log in, read and refresh again and again."""
        number = int(self._plan.log_in_every / self._plan.pause_seconds)
        while not self._over.is_set():
            with self._client(person.username) as api:
                for turn in range(1, number):
                    if self._over.wait(self._plan.pause_seconds):
                        return
                    if turn % 10 == 0:
                        api.auth.refresh()
                    api.auth.me()
                    api.auth.sessions()

    def _change_roles(self, people: list[Person]) -> None:
        """Give people a role, and remove it."""
        with self._administrator() as api:
            for turn in itertools.count():
                if self._over.wait(self._plan.change_every):
                    return
                roles = ["user", "moderator"] if turn // len(people) % 2 == 0 else ["user"]
                api.users.set_roles(people[turn % len(people)].id, roles)

    def _import(self) -> None:
        """Import some users, and delete them."""
        for turn in itertools.count():
            if self._over.wait(self._plan.import_every):
                return
            names = [f"imported-{turn}-{number}" for number in range(IMPORTED_ROWS)]
            rows = [
                json.dumps({"username": name, "email": f"{name}@example.com"}) for name in names
            ]
            content = "\n".join(rows).encode()
            with self._administrator() as api:
                until_answered(partial(api.users.import_rows, content))
                for user in list(api.users.iter(search=f"imported-{turn}-")):
                    api.users.delete(user.id)
