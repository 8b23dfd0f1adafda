"""Asking the service about each token, with the credentials of this program."""

import base64
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from either import AnyVerifier
from hostile import INTROSPECT, HostileService, Reply, problem

from userapi_client import ApiKey, ClientCredentials, Introspection, TokenRefused, Unavailable

Make = Callable[..., AnyVerifier]


def test_answers_good_and_bad_are_kept_for_some_seconds(
    make_verifier: Make, service: HostileService, clock: Any
) -> None:
    verifier = make_verifier(
        revocation=Introspection(cache_seconds=5), credentials=ApiKey("mine"), clock=clock
    )
    good, bad = service.token(), service.token()
    found = verifier.verify(good)
    service.reply(INTROSPECT, Reply(document={"active": False}))

    assert (found.username, found.checked, found.claims["iss"]) == (
        "robin",
        "service",
        "aima-user-service",
    )
    assert service.requests[-1].headers["Authorization"] == "Bearer mine"
    assert verifier.verify(good).username == "robin"
    for _ in range(3):
        with pytest.raises(TokenRefused) as refused:
            verifier.verify(bad)
        assert refused.value.code == "token_revoked"
    assert service.counts[INTROSPECT] == 2
    clock.advance(5)
    with pytest.raises(TokenRefused):
        verifier.verify(good)
    assert service.counts[INTROSPECT] == 3


def test_fresh_reads_no_cache_and_renews_it(make_verifier: Make, service: HostileService) -> None:
    verifier = make_verifier(revocation=Introspection(60), credentials=ApiKey("mine"))
    token = service.token()
    verifier.verify(token)
    service.reply(INTROSPECT, Reply(document={"active": False}))

    assert verifier.verify(token).username == "robin"
    with pytest.raises(TokenRefused):
        verifier.verify(token, fresh=True)
    with pytest.raises(TokenRefused):
        verifier.verify(token)
    assert service.counts[INTROSPECT] == 2


def test_client_credentials_introspect_with_basic(
    make_verifier: Make, service: HostileService
) -> None:
    make_verifier(credentials=ClientCredentials("account", "secret")).verify(
        service.token(), fresh=True
    )

    expected = "Basic " + base64.b64encode(b"account:secret").decode()
    assert service.requests[-1].headers["Authorization"] == expected


@pytest.mark.parametrize(
    "change",
    [
        {"token_type": "refresh"},
        {"token_type": None},
        {"iss": "elsewhere"},
        {"aud": "other"},
    ],
)
def test_an_active_token_of_another_kind_is_refused(
    make_verifier: Make, service: HostileService, change: dict[str, Any]
) -> None:
    service.reply(INTROSPECT, Reply(document=service.introspected(**change)))

    with pytest.raises(TokenRefused):
        make_verifier(credentials=ApiKey("mine")).verify(service.token(), fresh=True)


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_an_error_is_an_outage_and_is_not_kept(
    make_verifier: Make, service: HostileService, status: int
) -> None:
    """Credentials of this program that are refused say nothing about the caller's token."""
    verifier = make_verifier(revocation=Introspection(60), credentials=ApiKey("mine"))
    token = service.token()
    service.reply(INTROSPECT, problem(status, "token_invalid", Retry_After="3"))

    with pytest.raises(Unavailable) as unavailable:
        verifier.verify(token)

    assert unavailable.value.retry_after == 3
    service.reply(INTROSPECT, Reply(document=service.introspected()))
    assert verifier.verify(token).username == "robin"


def test_an_entry_that_has_expired_is_not_served_in_an_outage(
    make_verifier: Make, service: HostileService, clock: Any
) -> None:
    verifier = make_verifier(revocation=Introspection(5), credentials=ApiKey("mine"), clock=clock)
    token = service.token()
    verifier.verify(token)
    service.reply(INTROSPECT, problem(503, "service_unavailable"))

    assert verifier.verify(token).username == "robin"
    clock.advance(5)
    with pytest.raises(Unavailable):
        verifier.verify(token)


def test_many_callers_with_one_token_cause_one_request(
    make_verifier: Make, service: HostileService
) -> None:
    arrived, leave = threading.Event(), threading.Event()

    def slowly(_: object) -> Reply:
        arrived.set()
        leave.wait(30)
        return Reply(document=service.introspected())

    service.answer(INTROSPECT, slowly)
    verifier = make_verifier(revocation=Introspection(60), credentials=ApiKey("mine"), timeout=30)
    token = service.token()
    verifier.warm()

    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(verifier.verify, token) for _ in range(20)]
        assert arrived.wait(30)
        leave.set()
        names = {future.result(30).username for future in asked}

    assert names == {"robin"}
    assert service.counts[INTROSPECT] == 1


def test_the_cache_keeps_no_more_entries_than_allowed(
    make_verifier: Make, service: HostileService
) -> None:
    verifier = make_verifier(revocation=Introspection(60), credentials=ApiKey("mine"), cache_size=2)
    tokens = [service.token() for _ in range(3)]

    for token in (*tokens, tokens[2], tokens[1], tokens[0]):
        verifier.verify(token)

    assert service.counts[INTROSPECT] == 4
