"""Concurrent second steps on two workers of Gunicorn: a code or a token is accepted once."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Barrier

import pyotp
import pytest
import redis

from tests.support.databases import PostgresDatabase
from tests.support.gunicorn import GunicornService, add_administrator
from tests.support.proxy import FaultProxy, proxy_to, url_through
from tests.support.service_clients import PASSWORD, Answer, RecordingClient

AUTH = "/api/v1/auth"
AT_ONCE = 20
STEP_SECONDS = 30
# Requests that certainly reach both workers, each on a connection of its own.
ENOUGH_FOR_BOTH_WORKERS = 24


@dataclass(slots=True)
class Member:
    """A user with an authenticator app, whose code of the step before is used up."""

    service: GunicornService
    username: str
    id: str
    totp: pyotp.TOTP
    recovery_codes: list[str]
    access_token: str

    def code(self, steps: int = 0) -> str:
        return self.totp.at(time.time(), counter_offset=steps)

    def mfa_token(self) -> str:
        body = {"username": self.username, "password": PASSWORD}
        answer = RecordingClient(self.service.base_url).once("POST", f"{AUTH}/login", body)
        assert answer.status == 403, answer.body
        return str(answer.body["mfa_token"])

    def second_step(self, token: str, code: str) -> Answer:
        body = {"mfa_token": token, "code": code}
        return RecordingClient(self.service.base_url).once("POST", f"{AUTH}/login/mfa", body)


def wait_for_a_whole_step() -> None:
    """Wait where a code could change between two requests that belong together."""
    left = STEP_SECONDS - time.time() % STEP_SECONDS
    if left < 15:
        time.sleep(left + 0.1)


def new_member(service: GunicornService, username: str) -> Member:
    anyone = RecordingClient(service.base_url)
    new = {"username": username, "email": f"{username}@acme.test", "password": PASSWORD}
    registered = anyone.once("POST", f"{AUTH}/register", new)
    assert registered.status == 201, registered.body
    anyone.log_in(username)
    set_up = anyone.once("POST", f"{AUTH}/mfa/totp").body
    wait_for_a_whole_step()
    totp = pyotp.TOTP(set_up["secret"])
    confirmed = anyone.once(
        "POST",
        f"{AUTH}/mfa/totp/{set_up['id']}/confirm",
        {"code": totp.at(time.time(), counter_offset=-1)},
    )
    assert confirmed.status == 200, confirmed.body
    return Member(
        service=service,
        username=username,
        id=registered.body["id"],
        totp=totp,
        recovery_codes=confirmed.body["recovery_codes"],
        access_token=confirmed.body["access_token"],
    )


def at_once(calls: Sequence[Callable[[], Answer]]) -> Counter[tuple[int, str | None]]:
    """Run calls at the same moment; count their statuses and codes."""
    barrier = Barrier(len(calls))

    def run(call: Callable[[], Answer]) -> Answer:
        barrier.wait(60)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        answers = list(pool.map(run, calls))
    return Counter((answer.status, answer.body.get("code")) for answer in answers)


@pytest.fixture(scope="module", params=["postgresql", "sqlite"])
def service(
    request: pytest.FixtureRequest,
    make_database: Callable[[str], PostgresDatabase],
    redis_url: str,
) -> Iterator[GunicornService]:
    environment = {
        "ENVIRONMENT": "testing",
        "PASSWORD_HASH_ROUNDS": "4",
        "RATE_LIMIT_ENABLED": "false",
        "WEB_CONCURRENCY": "2",
        # Room for all at once: the guards of codes and tokens decide, not the lockout.
        "LOCKOUT_THRESHOLD": "50",
    }
    if request.param == "postgresql":
        environment |= {
            "DATABASE_URL": make_database("second_step").url,
            "REDIS_URL": redis_url,
        }
    with GunicornService(environment) as service:
        yield service


@pytest.mark.thorough
def test_one_code_on_many_tokens_signs_in_once(service: GunicornService, redis_url: str) -> None:
    """Of the implementations that were read, none guarded this in the database."""
    robin = new_member(service, "robin")
    tokens = [robin.mfa_token() for _ in range(10)] * 2
    code = robin.code()

    counts = at_once([partial(robin.second_step, token, code) for token in tokens])

    assert counts[200, None] == 1
    assert set(counts) <= {(200, None), (401, "invalid_code"), (401, "mfa_token_invalid")}
    redis.Redis.from_url(redis_url).flushdb()
    assert robin.second_step(robin.mfa_token(), code).status == 401
    service.stop()
    service.start()
    assert robin.second_step(robin.mfa_token(), code).status == 401
    assert robin.second_step(robin.mfa_token(), robin.code(1)).status == 200


def test_one_token_with_many_right_codes_signs_in_once(service: GunicornService) -> None:
    marian = new_member(service, "marian")
    token = marian.mfa_token()
    codes = marian.recovery_codes * 2

    counts = at_once([partial(marian.second_step, token, code) for code in codes])

    assert counts[200, None] == 1
    assert counts[401, "mfa_token_invalid"] == AT_ONCE - 1
    # The codes of those who came too late are still good.
    client = RecordingClient(service.base_url, token=marian.access_token)
    assert client.once("GET", f"{AUTH}/mfa").body["recovery_codes_left"] == 9


def test_one_recovery_code_on_many_tokens_signs_in_once(service: GunicornService) -> None:
    tuck = new_member(service, "tuck")
    tokens = [tuck.mfa_token() for _ in range(10)] * 2
    code = tuck.recovery_codes[0]

    counts = at_once([partial(tuck.second_step, token, code) for token in tokens])

    assert counts[200, None] == 1
    assert set(counts) <= {(200, None), (401, "invalid_code"), (401, "mfa_token_invalid")}


def test_an_app_is_confirmed_once(service: GunicornService) -> None:
    """One of them gets the recovery codes and the new tokens."""
    anyone = RecordingClient(service.base_url)
    new = {"username": "much", "email": "much@acme.test", "password": PASSWORD}
    anyone.once("POST", f"{AUTH}/register", new)
    anyone.log_in("much")
    set_up = anyone.once("POST", f"{AUTH}/mfa/totp").body
    body = {"code": pyotp.TOTP(set_up["secret"]).now()}
    path = f"{AUTH}/mfa/totp/{set_up['id']}/confirm"

    counts = at_once([lambda: anyone.once("POST", path, body)] * AT_ONCE)

    assert counts[200, None] == 1
    assert set(counts) <= {(200, None), (401, "token_revoked"), (404, "not_found")}


@pytest.fixture(scope="module")
def proxy(redis_url: str) -> Iterator[FaultProxy]:
    with proxy_to(redis_url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def default_service(
    make_database: Callable[[str], PostgresDatabase], redis_url: str, proxy: FaultProxy
) -> Iterator[GunicornService]:
    environment = {
        "ENVIRONMENT": "testing",
        "DATABASE_URL": make_database("second_step_defaults").url,
        "REDIS_URL": url_through(proxy, redis_url),
        "PASSWORD_HASH_ROUNDS": "4",
        "RATE_LIMIT_ENABLED": "false",
        "WEB_CONCURRENCY": "2",
    }
    with GunicornService(environment) as service:
        yield service


@pytest.mark.thorough
def test_with_the_usual_threshold_one_of_many_signs_in(default_service: GunicornService) -> None:
    robin = new_member(default_service, "robin")
    token, code = robin.mfa_token(), robin.code()

    counts = at_once([lambda: robin.second_step(token, code)] * AT_ONCE)

    assert counts[200, None] == 1
    assert {status for status, _ in counts} <= {200, 401, 429}
    # None of them was a failure, so nothing is locked.
    assert robin.second_step(robin.mfa_token(), robin.code(1)).status == 200


@pytest.mark.parametrize("redis_is_up", [True, False], ids=["with-redis", "without-redis"])
def test_after_a_reset_no_session_is_valid_on_any_worker(
    default_service: GunicornService, proxy: FaultProxy, redis_is_up: bool
) -> None:
    """Elsewhere sessions kept their level when an administrator removed the factor."""
    suffix = "up" if redis_is_up else "down"
    john = new_member(default_service, f"john-{suffix}")
    add_administrator(default_service, PASSWORD, username=f"chief-{suffix}")
    chief = RecordingClient(default_service.base_url)
    chief.log_in(f"chief-{suffix}")
    client = RecordingClient(default_service.base_url, token=john.access_token)
    for _ in range(ENOUGH_FOR_BOTH_WORKERS):  # Each worker has seen the session, and so has Redis.
        assert client.once("GET", f"{AUTH}/verify").status == 200

    if not redis_is_up:
        proxy.refuse()
    try:
        assert chief.once("DELETE", f"/api/v1/users/{john.id}/mfa").status == 204
        statuses = {
            client.once("GET", f"{AUTH}/verify").status for _ in range(ENOUGH_FOR_BOTH_WORKERS)
        }
    finally:
        proxy.pass_on()

    assert statuses == {401}
