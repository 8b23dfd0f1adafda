"""Log-ins in two steps: users with authenticator apps, and what each step costs."""

import json
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyotp

from benchmarks.load import cpu_seconds
from benchmarks.stage import API, PASSWORD, call, log_in
from tests.support.gunicorn import GunicornService

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
        token = log_in(service, name)["access_token"]
        set_up = call(service, "/auth/mfa/totp", {}, token=token)
        code = pyotp.TOTP(set_up["secret"]).now()
        call(service, f"/auth/mfa/totp/{set_up['id']}/confirm", {"code": code}, token=token)
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
    with ThreadPoolExecutor(PARALLEL) as threads:
        tokens = list(threads.map(lambda user: _mfa_token(service, user), users))
        pairs = list(zip(users, tokens, strict=True))
        time.sleep(STEP_SECONDS - time.time() % STEP_SECONDS)

        def step(pair: tuple[AppUser, str]) -> None:
            user, token = pair
            code = pyotp.TOTP(user.secret).now()
            call(service, "/auth/login/mfa", {"mfa_token": token, "code": code})

        list(threads.map(step, pairs[:WARM_UP]))
        pids = [service.pid, *database_pids]
        before = sum(cpu_seconds(pids).values())
        list(threads.map(step, pairs[WARM_UP:]))
        return (sum(cpu_seconds(pids).values()) - before) * 1000 / len(pairs[WARM_UP:])


def _mfa_token(service: GunicornService, user: AppUser) -> str:
    body = {"username": user.username, "password": PASSWORD}
    request = urllib.request.Request(
        f"{service.base_url}{API}/auth/login",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        urllib.request.urlopen(request, timeout=60).close()
    except urllib.error.HTTPError as answer:
        refused = json.loads(answer.read())
        if refused["code"] != "mfa_required":
            raise
        return str(refused["mfa_token"])
    raise AssertionError(f"{user.username} has no second factor")
