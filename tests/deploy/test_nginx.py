"""The shipped configuration of nginx, before the service as it is shipped."""

import http.client
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from signal import SIGQUIT
from typing import Any

import pytest

from tests.support.databases import PostgresDatabase
from tests.support.guardian import guardian
from tests.support.gunicorn import GunicornService
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.programs import NGINX, may_be_skipped
from tests.support.servers import end_process

CONFIGURATION = (
    Path(__file__).resolve().parents[2] / "deploy" / "nginx" / "default.conf"
).read_text("utf-8")

pytestmark = pytest.mark.skipif(may_be_skipped(NGINX), reason="nginx is not installed")


@dataclass(frozen=True, slots=True)
class Fronted:
    """nginx, and the service behind it."""

    port: int
    service: GunicornService

    def ask(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of a GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, body


@pytest.fixture(scope="module")
def fronted(
    make_database: Any, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fronted]:
    folder = tmp_path_factory.mktemp("nginx")
    database: PostgresDatabase = make_database("behind_nginx")
    environment = {
        "ENVIRONMENT": "testing",
        "DATABASE_URL": database.url,
        "REDIS_URL": redis_url,
        "TRUSTED_PROXY_COUNT": "1",
        "TRUSTED_HOSTS": "id.acme.test,127.0.0.1",
        "WEB_CONCURRENCY": "1",
        "DRAIN_SECONDS": "0",
    }
    with GunicornService(environment) as service:
        port = free_port()
        server = CONFIGURATION.replace("listen 8080", f"listen 127.0.0.1:{port}")
        server = server.replace(
            "set $service service:8000", f"set $service 127.0.0.1:{service.port}"
        )
        assert server.count("127.0.0.1") == 2 + 1  # The two, and the engine's name server.
        (folder / "nginx.conf").write_text(
            f"pid {folder}/nginx.pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
            f"http {{\naccess_log off;\n"
            + "".join(
                f"{kind}_temp_path {folder}/{kind};\n"
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            + server
            + "}\n"
        )
        process = subprocess.Popen(
            [NGINX.require(), "-p", folder, "-c", folder / "nginx.conf", "-g", "daemon off;"],
            stdin=subprocess.DEVNULL,
        )
        guardian.watch(process.pid, ended_by=SIGQUIT)
        try:
            wait_until(lambda: _answers(port))
            yield Fronted(port, service)
        finally:
            guardian.forget(process.pid)
            end_process(process, SIGQUIT)


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/health/live", timeout=1).close()
    except OSError:
        return False
    return True


def test_requests_reach_the_service_under_the_name_that_they_were_sent_to(fronted: Fronted) -> None:
    assert fronted.ask("/api/v1/health/ready", Host="id.acme.test")[0] == 200
    status, _, body = fronted.ask("/api/v1/health/ready", Host="evil.test")
    assert (status, json.loads(body)["code"]) == (400, "malformed_request")


def test_metrics_are_not_for_those_outside(fronted: Fronted) -> None:
    assert fronted.ask("/metrics")[0] == 404


def test_addresses_are_those_of_callers_and_nobody_makes_one_up(fronted: Fronted) -> None:
    fronted.ask("/api/v1/auth/verify", **{"X-Forwarded-For": "203.0.113.7"})

    wait_until(lambda: "/api/v1/auth/verify" in fronted.service.log)
    (line,) = [
        json.loads(line)
        for line in fronted.service.log.splitlines()
        if '"/api/v1/auth/verify"' in line
    ]
    assert line["ip_address"] == "127.0.0.1"


def test_a_large_body_is_refused_by_the_service_in_its_own_words(fronted: Fronted) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", fronted.port, timeout=10)
    connection.request(
        "POST",
        "/api/v1/auth/login",
        body=b'{"username": "' + b"a" * 3_000_000 + b'"}',
        headers={"Content-Type": "application/json"},
    )
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()

    assert (answer.status, body["code"]) == (413, "body_too_large")


def test_nothing_tells_which_nginx_it_is(fronted: Fronted) -> None:
    headers = fronted.ask("/metrics")[1]

    assert headers["server"] == "nginx"


def test_a_service_that_starts_again_is_found_again(fronted: Fronted) -> None:
    fronted.service.stop()
    assert fronted.ask("/api/v1/health/live")[0] == 502
    fronted.service.start()
    time.sleep(0.1)

    assert fronted.ask("/api/v1/health/live")[0] == 200


def test_a_token_of_the_greatest_length_reaches_the_service(fronted: Fronted) -> None:
    status, _, body = fronted.ask("/api/v1/auth/verify", Authorization="Bearer " + "x" * 4096)

    assert (status, json.loads(body)["code"]) == (401, "token_invalid")
