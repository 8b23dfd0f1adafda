"""Log-ins in two steps: users with authenticator apps, and what each step costs."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyotp

from benchmarks.load import cpu_seconds
from benchmarks.stage import PASSWORD, client_of
from tests.support.gunicorn import GunicornService
from userapi_client import Client, Problem

STEP_SECONDS = 30
PARALLEL = 4
# Each process imports what it needs for codes at the first one.
WARM_UP = 16


@dataclass(frozen=True, slots=True)
class AppUser:
    """A user with an authenticator app, and its secret."""

    username: str
    secret: str


def add_apps(service: GunicornService, names: list[str]) -> list[AppUser]:
    """Give each of these users an authenticator app."""

    def add(name: str) -> AppUser:
        with client_of(service, name) as api:
            set_up = api.request("POST", "/auth/mfa/totp", json={}).json()
            code = {"code": pyotp.TOTP(set_up["secret"]).now()}
            api.request("POST", f"/auth/mfa/totp/{set_up['id']}/confirm", json=code)
        return AppUser(name, set_up["secret"])

    with ThreadPoolExecutor(PARALLEL) as threads:
        return list(threads.map(add, names))


def second_step_milliseconds(
    service: GunicornService, users: list[AppUser], database_pids: list[int]
) -> float:
    """Return the CPU time of Gunicorn and PostgreSQL for the second step of a log-in.

    A code is accepted once, so each user takes the step once, with the code of a new time step. The
    first users are not counted.
    """
    with (
        Client(service.base_url, timeout=60) as anyone,
        ThreadPoolExecutor(PARALLEL) as threads,
    ):
        tokens = list(threads.map(lambda user: _mfa_token(anyone, user), users))
        pairs = list(zip(users, tokens, strict=True))
        time.sleep(STEP_SECONDS - time.time() % STEP_SECONDS)

        def step(pair: tuple[AppUser, str]) -> None:
            user, token = pair
            code = pyotp.TOTP(user.secret).now()
            body = {"mfa_token": token, "code": code}
            anyone.request("POST", "/auth/login/mfa", json=body)

        list(threads.map(step, pairs[:WARM_UP]))
        pids = [service.pid, *database_pids]
        before = sum(cpu_seconds(pids).values())
        list(threads.map(step, pairs[WARM_UP:]))
        return (sum(cpu_seconds(pids).values()) - before) * 1000 / len(pairs[WARM_UP:])


def _mfa_token(client: Client, user: AppUser) -> str:
    body = {"username": user.username, "password": PASSWORD}
    try:
        client.request("POST", "/auth/login", json=body)
    except Problem as problem:
        if problem.code != "mfa_required":
            raise
        return str(problem.body["mfa_token"])
    raise AssertionError(f"{user.username} has no second factor")
