"""Metrics while a server is unavailable, and after it has recovered."""

import time
from collections.abc import Callable

import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.deployments import Deployment
from tests.support.metrics import sample
from tests.support.polling import wait_until
from tests.support.proxy import proxy_to, url_through


def log_in(client: JsonClient) -> int:
    body = {"username": "nobody", "password": "violet-harbour-93-lantern"}
    return client.post("/api/v1/auth/login", json=body).status_code


def test_connections_that_cannot_be_made_are_not_counted_as_given_back(
    make_app: Callable[..., Flask], deployment: Deployment
) -> None:
    """After an outage fewer than none were in use: one for each request that had been refused."""
    with proxy_to(deployment.database.url) as proxy:
        client = JsonClient(make_app(DATABASE_URL=url_through(proxy, deployment.database.url)))
        log_in(client)

        proxy.refuse()
        refused = [log_in(client) for _ in range(3)]
        in_use_meanwhile = sample(client, "db_pool_connections", state="in_use")
        proxy.pass_on()
        log_in(client)

        assert refused == [503, 503, 503]
        assert in_use_meanwhile == 0
        assert sample(client, "db_pool_connections", state="in_use") == 0
        assert sample(client, "db_pool_connections", state="idle") == 1


@pytest.mark.thorough
def test_a_server_that_did_not_answer_is_up_soon_after_it_does(
    make_app: Callable[..., Flask], deployment: Deployment
) -> None:
    """The longer a scrape had waited for it, the longer it was reported as unavailable: minutes."""
    with proxy_to(deployment.database.url) as proxy:
        client = JsonClient(make_app(DATABASE_URL=url_through(proxy, deployment.database.url)))

        proxy.black_hole()
        up_meanwhile = sample(client, "dependency_up", dependency="database")
        proxy.pass_on()
        back = time.monotonic()
        wait_until(
            lambda: (
                sample(client, "dependency_up", dependency="database") == 1
                and "outbox_oldest_seconds" in client.get("/metrics").text
            ),
            seconds=30,
        )

        assert up_meanwhile == 0
        assert time.monotonic() - back < 5
