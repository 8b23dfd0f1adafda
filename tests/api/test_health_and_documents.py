"""Health, the index and the documents."""

from collections.abc import Callable

import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.users import LogIn, MakeUser


def test_the_index_links_what_there_is(client: JsonClient) -> None:
    links = client.get("/").get_json()

    assert client.get(links["docs"]).status_code == 200
    assert client.get(links["openapi"]).get_json()["openapi"].startswith("3.")


@pytest.mark.parametrize("path", ["/api/v1/health/", "/api/v1/health"])
def test_health_answers(client: JsonClient, path: str) -> None:
    body = client.get(path).get_json()

    assert body["status"] == "healthy"
    assert body.keys() == {"status", "service", "version", "timestamp"}


def test_alive_and_ready(client: JsonClient) -> None:
    assert client.get("/api/v1/health/live").status_code == 200
    ready = client.get("/api/v1/health/ready")
    assert ready.status_code == 200
    assert ready.get_json()["checks"]["database"] == "up"


def test_details_need_a_permission_or_the_operators_consent(
    client: JsonClient, make_user: MakeUser, log_in: LogIn, make_app: Callable[..., Flask]
) -> None:
    robin, boss = log_in(make_user("robin")), log_in(make_user("boss", roles=["admin"]))
    path = "/api/v1/health/detailed"

    assert client.get(path).status_code == 401
    assert robin.get(path).status_code == 403
    body = boss.get(path).get_json()
    assert body["components"]["database"]["status"] == "up"
    assert body["components"]["database"]["latency_ms"] > 0
    assert body["components"]["outbox"]["pending"] >= 1
    opened = JsonClient(make_app(HEALTH_DETAILED_PUBLIC="true"))
    assert opened.get(path).status_code == 200


def test_a_database_that_is_not_migrated_is_not_ready(make_app: Callable[..., Flask]) -> None:
    client = JsonClient(make_app(DATABASE_URL="sqlite:////nonexistent/none.sqlite3"))

    answer = client.get("/api/v1/health/ready")

    assert answer.status_code == 503
    assert answer.get_json()["status"] == "not_ready"
    assert int(answer.headers["Retry-After"]) >= 1
    assert client.get("/api/v1/health/live").status_code == 200


def test_what_needs_a_database_that_is_not_migrated_is_503(
    make_app: Callable[..., Flask], postgresql_url: str
) -> None:
    """On PostgreSQL the response was 500."""
    client = JsonClient(make_app(DATABASE_URL=postgresql_url))

    answer = client.post(
        "/api/v1/auth/login", json={"username": "robin", "password": "long-enough-1"}
    )

    assert (answer.status_code, answer.get_json()["code"]) == (503, "service_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1


def test_the_documents_can_be_disabled(make_app: Callable[..., Flask]) -> None:
    client = JsonClient(make_app(DOCS_ENABLED="false"))

    assert [client.get(p).status_code for p in ("/docs", "/redoc", "/openapi.json")] == [404] * 3
    assert "docs" not in client.get("/").get_json()


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_a_page_loads_nothing_from_other_hosts(client: JsonClient, path: str) -> None:
    page = client.get(path)

    assert "http" not in page.text.replace("http-equiv", "")
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
