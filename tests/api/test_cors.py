"""Browsers of other origins."""

from collections.abc import Callable

import pytest
from flask import Flask

from tests.support.client import JsonClient

LIVE = "/api/v1/health/live"
ALLOWED = "Access-Control-Allow-Origin"
STRANGERS = [
    "https://evil.example",
    "https://app.example.evil.example",
    "https://appXexample",
    "http://app.example",
    "https://app.example:8443",
    "https://evil.example/https://app.example",
    "null",
]


@pytest.mark.parametrize(
    "origins", ["https://app.example", "https://app.example,https://b.example"]
)
def test_a_listed_origin_is_allowed_without_credentials(
    make_app: Callable[..., Flask], origins: str
) -> None:
    client = JsonClient(make_app(CORS_ORIGINS=origins))

    for path in (LIVE, "/nothing", "/api/v1/auth/me"):
        answer = client.get(path, headers={"Origin": "https://app.example"})
        assert answer.headers[ALLOWED] == "https://app.example"
        assert answer.headers.getlist("Vary") == ["Origin"]
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize(
    "origins", ["https://app.example", "https://app.example,https://b.example"]
)
def test_another_origin_is_not_reflected(
    make_app: Callable[..., Flask], origins: str, stranger: str
) -> None:
    client = JsonClient(make_app(CORS_ORIGINS=origins))

    answer = client.get(LIVE, headers={"Origin": stranger})

    assert ALLOWED not in answer.headers
    assert answer.headers.getlist("Vary") == ["Origin"]


def test_a_preflight_lists_the_allowed_methods_and_headers(make_app: Callable[..., Flask]) -> None:
    client = JsonClient(make_app(CORS_ORIGINS="https://app.example"))

    answer = client.request(
        "OPTIONS",
        "/api/v1/users/",
        headers={
            "Origin": "https://app.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,idempotency-key,x-evil",
        },
    )

    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Headers"] == "authorization, idempotency-key"
    exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"ETag", "X-Correlation-ID", "X-RateLimit-Remaining"} <= set(exposed)


def test_a_wildcard_origin_is_never_allowed_with_credentials(
    make_app: Callable[..., Flask],
) -> None:
    client = JsonClient(make_app(CORS_ORIGINS="*"))

    answer = client.get(LIVE, headers={"Origin": "https://evil.example"})

    assert answer.headers[ALLOWED] == "*"
    assert "Access-Control-Allow-Credentials" not in answer.headers


def test_without_the_setting_there_are_no_other_origins(client: JsonClient) -> None:
    answer = client.get(LIVE, headers={"Origin": "https://app.example"})

    assert not [name for name in answer.headers.keys() if name.startswith("Access-Control")]
