"""The previous release and this one serve side by side, on the schema of this one.

The upgrade goes as docs/operating.md describes it: first the schema, then the pods one by one,
then the worker; and back to the pods of the previous release, which keep the new schema.
"""

import http.cookiejar
import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.cluster.conftest import ENVIRONMENT
from tests.cluster.guarantees import hold
from tests.support.clusters.consumer import Consumer
from tests.support.clusters.load import Checks, Writes, log_in, summary
from tests.support.clusters.releases import previous_release
from tests.support.gunicorn import PRESENT_RELEASE, GunicornService, Release
from tests.support.polling import wait_until
from tests.support.proxy import FaultProxy
from tests.support.service_clients import PASSWORD, RecordingClient
from tests.support.worker_process import WorkerProcess
from userapi_client import ApiKey, Client

# The first run installs the libraries of the previous release.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

CSRF = re.compile(r'name="csrf_token"[^>]*value="([^"]+)"')
JOURNEYS = 4
_numbers = count(1)


class Fleet:
    """Pods of both releases behind one proxy that chooses one for each connection."""

    def __init__(self, environment: dict[str, str], stack: ExitStack, directory: Path) -> None:
        self._environment = environment
        self._stack = stack
        self._directory = directory
        self._pods: list[GunicornService] = []
        self.route = stack.enter_context(FaultProxy("127.0.0.1", 9))

    @property
    def base_url(self) -> str:
        """Where clients connect to."""
        return f"http://{self.route.host}:{self.route.port}"

    def flask(self, release: Release, *arguments: str, stdin: str = "") -> None:
        """Run a `flask` command of a release."""
        pod = GunicornService(self._environment, release=release)
        done = pod.flask(*arguments, stdin=stdin)
        pod.__exit__()
        assert done.returncode == 0, done.stderr

    def add(self, release: Release) -> GunicornService:
        """Start a pod and send requests to it, too."""
        pod = self._stack.enter_context(GunicornService(self._environment, release=release))
        self._pods.append(pod)
        self._lead()
        return pod

    def remove(self, pod: GunicornService) -> None:
        """Send no more requests to a pod, as its Service does, then stop it."""
        self._pods.remove(pod)
        self._lead()
        assert pod.stop() == 0

    def worker(self, release: Release) -> WorkerProcess:
        """Start a worker of a release."""
        number = next(_numbers)
        instance = self._directory / f"instance-{number}"
        log = self._directory / f"worker-{number}.log"
        variables = {**self._environment, "INSTANCE_DIR": str(instance)}
        worker = WorkerProcess(variables, log, release=release)
        self._stack.callback(_end, worker)
        worker.wait_until_started()
        return worker

    def _lead(self) -> None:
        self.route.lead_to(*(pod.port for pod in self._pods))


def _end(worker: WorkerProcess) -> None:
    if worker.is_running:
        worker.process.terminate()
        worker.process.wait(40)


@pytest.fixture
def fleet(
    single_database: str,
    redis_url: str,
    rabbitmq_url: str,
    rabbitmq_exchange: str,
    tmp_path: Path,
) -> Iterator[Fleet]:
    """Return pods, at first none, on an empty database."""
    connection = psycopg2.connect(single_database)
    connection.autocommit = True
    connection.cursor().execute(
        "DROP SCHEMA pristine CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public"
    )
    connection.close()
    environment = {
        **ENVIRONMENT,
        "DATABASE_URL": single_database,
        "REDIS_URL": redis_url,
        "RABBITMQ_URL": rabbitmq_url,
        "RABBITMQ_EXCHANGE": rabbitmq_exchange,
        "DRAIN_SECONDS": "0",
    }
    with ExitStack() as stack:
        yield Fleet(environment, stack, tmp_path)


def test_no_request_fails_on_the_way_to_this_release_and_back(
    fleet: Fleet, rabbitmq_url: str, rabbitmq_exchange: str, tmp_path: Path
) -> None:
    old = previous_release(tmp_path)
    fleet.flask(old, "db", "upgrade")
    fleet.flask(
        old, "users", "create-admin", "--username", "admin", "--email", "admin@example.com",
        "--password-stdin", stdin=PASSWORD + "\n",
    )  # fmt: skip
    old_pods = [fleet.add(old) for _ in range(2)]
    old_worker = fleet.worker(old)
    admin = log_in(fleet.base_url, "admin").client
    checks = Checks([fleet.base_url], [admin.token or ""])
    writes = Writes([fleet.base_url], admin.token or "")

    with Consumer(rabbitmq_url, rabbitmq_exchange, "upgrade") as consumer:
        with checks.load(per_second=20, threads=2), writes.load(per_second=10, threads=2):
            journeys(fleet, admin, 1)
            fleet.flask(PRESENT_RELEASE, "db", "upgrade")
            journeys(fleet, admin, 1)
            new_pods = [fleet.add(PRESENT_RELEASE) for _ in range(2)]
            journeys(fleet, admin, JOURNEYS)
            new_worker = fleet.worker(PRESENT_RELEASE)
            for pod in old_pods:
                fleet.remove(pod)
            _end(old_worker)
            journeys(fleet, admin, 1)
            # And back, on the schema of this release.
            old_pods = [fleet.add(old) for _ in range(2)]
            fleet.worker(old)
            journeys(fleet, admin, JOURNEYS)
            for pod in new_pods:
                fleet.remove(pod)
            _end(new_worker)
            journeys(fleet, admin, 1)
        created = {attempt.subject for attempt in writes.record.acknowledged}
        wait_until(lambda: created <= consumer.created, seconds=60)

    failed = checks.record.failed_after(0) + writes.record.failed_after(0)
    assert failed == [], summary(failed)
    hold("G11", len(failed), bound=0)


def journeys(fleet: Fleet, admin: RecordingClient, times: int) -> None:
    """Go through everything that both releases share; each request may meet either of them."""
    for _ in range(times):
        name = f"traveller{next(_numbers)}"
        guest = RecordingClient(fleet.base_url)
        new = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        user = expect(guest.once("POST", "/api/v1/auth/register", new), 201)
        session = log_in(fleet.base_url, name)
        client = session.client
        for _ in range(3):
            body = {"refresh_token": session.refresh_token}
            pair = expect(client.once("POST", "/api/v1/auth/refresh", body), 200)
            session.refresh_token, client.token = pair["refresh_token"], pair["access_token"]
            expect(client.once("GET", "/api/v1/auth/verify"), 200)
        expect(client.once("PATCH", f"/api/v1/users/{user['id']}", {"first_name": "Ada"}), 200)
        assert expect(client.once("GET", "/api/v1/users/me"), 200)["first_name"] == "Ada"
        roles = {"roles": ["user", "moderator"]}
        expect(admin.once("PUT", f"/api/v1/users/{user['id']}/roles", roles), 200)
        for _ in range(3):
            verified = expect(client.once("GET", "/api/v1/auth/verify"), 200)
            assert "users:suspend" in verified["permissions"]
        expect(client.once("GET", "/api/v1/users/?page=1&search=traveller"), 200)
        follow_cursors(admin)
        repeat(admin, f"{name}-once")
        import_one(fleet.base_url, admin.token or "", f"{name}-imported")
        use_console(fleet.base_url, name)
        other = log_in(fleet.base_url, name)
        expect(other.client.once("POST", "/api/v1/auth/logout"), 204)
        for _ in range(4):
            expect(other.client.once("GET", "/api/v1/users/me"), 401)
        expect(admin.once("POST", f"/api/v1/users/{user['id']}/suspend", {"reason": "done"}), 200)
        for _ in range(4):
            status = client.once("GET", "/api/v1/users/me").status
            assert status in (401, 403)


def expect(answer: Any, status: int) -> Any:
    """Return the body of an answer of this status."""
    assert answer.status == status, (answer.status, answer.body)
    return answer.body


def follow_cursors(admin: RecordingClient) -> None:
    """Read a list by cursors, each perhaps made by the other release."""
    seen: list[str] = []
    query = ""
    for _ in range(6):
        page = expect(admin.once("GET", f"/api/v1/audit-logs/?page_size=2{query}"), 200)
        seen += [row["id"] for row in page["items"]]
        query = f"&cursor={page['next_cursor']}"
    assert len(seen) == len(set(seen)) == 12


def repeat(admin: RecordingClient, name: str) -> None:
    """Create a user by a request that is repeated: the other release may have the answer."""
    body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
    answers = [admin.once("POST", "/api/v1/users/", body, key=name) for _ in range(4)]
    ids = {expect(answer, 201)["id"] for answer in answers}
    assert (len(ids), [answer.replayed for answer in answers]) == (1, [False, True, True, True])


def import_one(base_url: str, token: str, name: str) -> None:
    """Import a user from NDJSON."""
    row = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
    with Client(base_url, ApiKey(token)) as client:
        client.request(
            "POST",
            "/api/v1/users/import",
            content=json.dumps(row).encode(),
            headers={"Content-Type": "application/x-ndjson"},
        )


def use_console(base_url: str, name: str) -> None:
    """Sign in to the console and read three pages, each perhaps from the other release."""
    jar = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    with browser.open(f"{base_url}/console/sign-in", timeout=15) as page:
        found = CSRF.search(page.read().decode())
    assert found is not None
    form = {"csrf_token": found[1], "username": name, "password": PASSWORD}
    request = urllib.request.Request(
        f"{base_url}/console/sign-in",
        data=urllib.parse.urlencode(form).encode(),
        headers={"Origin": base_url, "Referer": f"{base_url}/console/sign-in"},
    )
    with browser.open(request, timeout=15) as page:
        assert page.status == 200
    for _ in range(3):
        with browser.open(f"{base_url}/console/profile", timeout=15) as page:
            assert page.url.endswith("/console/profile"), page.url
            assert name in page.read().decode()
