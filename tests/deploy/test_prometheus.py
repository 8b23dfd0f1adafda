"""A real Prometheus with the shipped configuration scrapes the service; the board shows it."""

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest
import yaml

from tests.support.databases import PostgresDatabase
from tests.support.guardian import guardian
from tests.support.gunicorn import GunicornService
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.programs import PROMETHEUS, may_be_skipped
from tests.support.servers import end_process
from tests.support.worker_process import WorkerProcess

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
BOARD: dict[str, Any] = json.loads(
    (DEPLOY / "grafana" / "dashboards" / "userapi.json").read_text("utf-8")
)
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
TOKEN = "kJ3vX9qLw2Rt7Yb5Nc8Zm4Hd6Pf1Gs0A"
PASSWORD = "violet-harbour-93-lantern"

pytestmark = pytest.mark.skipif(may_be_skipped(PROMETHEUS), reason="Prometheus is not installed")


class Prometheus:
    """The shipped configuration, its targets and paths replaced by those of the test."""

    def __init__(self, folder: Path, targets: dict[str, int]) -> None:
        configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        (folder / "token").write_text(TOKEN)
        configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        configuration["rule_files"] = [str(DEPLOY / "prometheus" / "alerts.yml")]
        for job in configuration["scrape_configs"]:
            assert job.pop("dns_sd_configs")[0]["type"] == "A"
            address = f"127.0.0.1:{targets[job['job_name']]}"
            job["static_configs"] = [{"targets": [address]}]
            if "authorization" in job:
                assert job["authorization"] == {"credentials_file": "/run/secrets/metrics_token"}
                job["authorization"]["credentials_file"] = str(folder / "token")
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        self.url = f"http://127.0.0.1:{free_port()}"
        with (folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    PROMETHEUS.require(),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        guardian.watch(self._process.pid, ended_by=SIGTERM)

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of Prometheus' HTTP API."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=60) as answer:
            body = json.loads(answer.read())
        assert body["status"] == "success", body
        return body["data"]

    def value_of(self, expression: str) -> list[dict[str, Any]]:
        """Return what an expression is now: a list of labelled values."""
        result: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return result

    def targets_up(self) -> set[str]:
        """Return the jobs whose last scrape went well."""
        try:
            targets = self.ask("targets")["activeTargets"]
        except OSError:
            return set()
        return {target["labels"]["job"] for target in targets if target["health"] == "up"}

    def end(self) -> None:
        """Stop it."""
        guardian.release(self._process.pid)
        end_process(self._process, SIGTERM)


def call(
    service: GunicornService, method: str, path: str, body: Any = None, *, token: str = ""
) -> Any:
    request = urllib.request.Request(
        service.base_url + path,
        data=json.dumps(body).encode() if body is not None else None,
        headers={
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {token}"} if token else {}),
        },
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as exc:
        return json.loads(exc.read())


def use_key(service: GunicornService, token: str) -> None:
    """Use a personal key, and request a client token, which personal keys cannot get."""
    key = call(service, "POST", "/api/v1/users/me/api-keys/", {"name": "ci"}, token=token)["key"]
    call(service, "GET", "/api/v1/auth/verify", token=key)
    client = {"client_id": "robin", "client_secret": key}
    call(service, "POST", "/api/v1/auth/token", {"grant_type": "client_credentials", **client})


@pytest.fixture(scope="module")
def prometheus(
    make_database: Callable[[str], PostgresDatabase],
    redis_url: str,
    rabbitmq_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Prometheus]:
    """Return a Prometheus that has watched two workers of Gunicorn and `flask worker` at work."""
    folder = tmp_path_factory.mktemp("prometheus")
    environment = {
        "ENVIRONMENT": "testing",
        "DATABASE_URL": make_database("watched").url,
        "REDIS_URL": redis_url,
        "RABBITMQ_URL": rabbitmq_url,
        "RABBITMQ_EXCHANGE": "watched_events",
        "METRICS_TOKEN": TOKEN,
        "WEB_CONCURRENCY": "2",
        "PASSWORD_HASH_ROUNDS": "4",
        "RATE_LIMIT_LOGIN": "8/minute",
    }
    worker_port = free_port()
    with GunicornService(environment) as service:
        variables = {**environment, "INSTANCE_DIR": str(folder / "worker")}
        worker = WorkerProcess(variables, folder / "worker.log", "--metrics-port", str(worker_port))
        watching = Prometheus(folder, {"userapi": service.port, "userapi-worker": worker_port})
        try:
            wait_until(lambda: watching.targets_up() == {"userapi", "userapi-worker"})
            user = {"username": "robin", "email": "robin@example.com", "password": PASSWORD}
            for _ in range(3):
                call(service, "POST", "/api/v1/auth/register", user)
                call(service, "GET", "/")
                log_in = {"username": "robin", "password": PASSWORD}
                tokens = call(service, "POST", "/api/v1/auth/login", log_in)
                if "access_token" in tokens:  # Some of the log-ins are over the limit.
                    use_key(service, tokens["access_token"])
                refresh = {"refresh_token": tokens.get("refresh_token", "none")}
                call(service, "POST", "/api/v1/auth/refresh", refresh)
                for _ in range(4):
                    log_in = {"username": "robin", "password": "not-this-one-1"}
                    call(service, "POST", "/api/v1/auth/login", log_in)
                time.sleep(2)  # Rates need several scrapes.
            yield watching
        finally:
            watching.end()
            worker.end(SIGTERM)


def test_the_files_are_what_prometheus_takes() -> None:
    promtool = PROMETHEUS.require().with_name("promtool")
    for arguments in (
        ("check", "config", "--syntax-only", "prometheus.yml"),
        ("check", "rules", "--lint-fatal", "alerts.yml"),
    ):
        run = subprocess.run(
            [promtool, *arguments],
            cwd=DEPLOY / "prometheus",
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.thorough
def test_it_scrapes_service_and_worker(prometheus: Prometheus) -> None:
    published = prometheus.value_of('events_published_total{job="userapi"}')

    assert prometheus.targets_up() == {"userapi", "userapi-worker"}
    assert float(published[0]["value"][1]) >= 1


def test_every_rule_is_evaluated_without_a_fault(prometheus: Prometheus) -> None:
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]

    shipped = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text("utf-8"))["groups"]
    names = [rule["alert"] for group in shipped for rule in group["rules"]]
    assert [rule["name"] for rule in rules] == names
    assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []
    firing = {rule["name"] for rule in rules if rule["state"] == "firing"}
    assert firing == set()


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_every_panel_of_the_board_shows_something(
    prometheus: Prometheus, panel: dict[str, Any]
) -> None:
    for target in panel["targets"]:
        expression = target["expr"].replace("$__rate_interval", "10s")
        assert prometheus.value_of(expression), expression


def test_panels_do_not_overlap_and_fit_the_board() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def test_the_board_reads_from_the_source_that_is_provisioned() -> None:
    provisioned = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text("utf-8")
    )["datasources"]

    assert {panel["datasource"]["uid"] for panel in PANELS} == {provisioned[0]["uid"]}
