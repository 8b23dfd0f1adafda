"""Authenticator apps as users have them: their codes at the time of the service's clock."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyotp
from flask import Flask

from tests.support.client import JsonClient
from tests.support.users import MadeUser, SignedInClient
from userapi.clock import Clock, ManualClock

LOGIN = "/api/v1/auth/login"
SECOND_STEP = "/api/v1/auth/login/mfa"
MFA = "/api/v1/auth/mfa"
STEP_SECONDS = 30


@dataclass(slots=True)
class App:
    """An authenticator app that a user has added, and what they got with it."""

    id: str
    secret: str
    clock: Clock
    recovery_codes: list[str]
    client: SignedInClient
    """The client of the session that has added it, with its new tokens."""

    def code(self, steps: int = 0) -> str:
        """Return the code of now, or of some steps later or earlier."""
        return code_of(self.secret, self.clock, steps)


def code_of(secret: str, clock: Clock, steps: int = 0) -> str:
    """Return the code that an app with this secret shows, or shows some steps later."""
    return pyotp.TOTP(secret).at(clock.now(), counter_offset=steps)


def wrong_code(secret: str, clock: Clock) -> str:
    """Return six digits that are no code of the secret for hours."""
    step = int(clock.now().timestamp()) // STEP_SECONDS
    near = {pyotp.TOTP(secret).generate_otp(step + n) for n in range(-500, 500)}
    return next(f"{n:06}" for n in range(1_000_000) if f"{n:06}" not in near)


def begin_step(clock: ManualClock) -> None:
    """Move the clock to the beginning of the next time step, of which 29 seconds are left."""
    now = int(clock.now().timestamp())
    clock.set(datetime.fromtimestamp(now - now % STEP_SECONDS + STEP_SECONDS + 1, UTC))


def set_up_app(client: JsonClient, **body: object) -> dict[str, Any]:
    """Ask for the secret of an app, and return the answer."""
    answer = client.post(f"{MFA}/totp", json=body or None)
    assert answer.status_code == 201, answer.text
    set_up: dict[str, Any] = answer.get_json()
    return set_up


def add_app(client: SignedInClient, clock: Clock, **body: object) -> App:
    """Add an app as the user of a session, who then has the new tokens of the session."""
    set_up = set_up_app(client, **body)
    answer = client.post(
        f"{MFA}/totp/{set_up['id']}/confirm", json={"code": code_of(set_up["secret"], clock)}
    )
    assert answer.status_code == 200, answer.text
    added = answer.get_json()
    return App(
        id=set_up["id"],
        secret=set_up["secret"],
        clock=clock,
        recovery_codes=added.get("recovery_codes", []),
        client=SignedInClient(client.app, added),
    )


def mfa_token(app: Flask, user: MadeUser, **body: object) -> str:
    """Take the first step of a log-in, and return the token for the second."""
    answer = first_step(app, user, **body)
    assert (answer.status_code, answer.get_json()["code"]) == (403, "mfa_required"), answer.text
    return str(answer.get_json()["mfa_token"])


def first_step(app: Flask, user: MadeUser, **body: object) -> Any:
    """Log in with the password of a user."""
    credentials = {"username": user.username, "password": user.password}
    return JsonClient(app).post(LOGIN, json={**credentials, **body})


def second_step(app: Flask, token: str, code: str) -> Any:
    """Take the second step of a log-in with a code."""
    return JsonClient(app).post(SECOND_STEP, json={"mfa_token": token, "code": code})


def log_in_with_code(app: Flask, user: MadeUser, code: str, **body: object) -> SignedInClient:
    """Take both steps of a log-in, and return the client of the new session."""
    answer = second_step(app, mfa_token(app, user, **body), code)
    assert answer.status_code == 200, answer.text
    return SignedInClient(app, answer.get_json())
