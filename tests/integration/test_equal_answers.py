"""Without the correct password, no response reveals whether an account exists or is blocked."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.users import MakeUser
from userapi.accounts.models import UserStatus
from userapi.actor import system_actor
from userapi.clock import ManualClock

LOGIN = "/api/v1/auth/login"
WRONG = "wrong-password-1"
CORRELATION = "the-same-for-all"
# Each names another reason why a log-in is rejected.
IDENTIFIERS = ["robin", "robin@example.com", "nobody", "nobody@example.com", "sus", "pen", "was"]


@pytest.fixture
def people(client: JsonClient, make_user: MakeUser, clock: ManualClock) -> list[str]:
    """Create a user for each identifier that should exist, and return the identifiers."""
    make_user("robin")
    make_user("sus", status=UserStatus.SUSPENDED)
    make_user("pen", status=UserStatus.PENDING)
    make_user("was")
    for _ in range(5):
        log_in(client, "was")
    clock.advance(seconds=61)  # Locked before, and no longer.
    return IDENTIFIERS


def log_in(client: JsonClient, username: str, password: str = WRONG) -> Any:
    return client.post(
        LOGIN,
        json={"username": username, "password": password},
        headers={"X-Correlation-ID": CORRELATION},
    )


def shown(answer: Any) -> tuple[int, bytes, list[tuple[str, str]]]:
    """Return all that a caller sees of an answer."""
    return answer.status_code, answer.data, sorted(answer.headers)


@pytest.mark.both_databases
def test_wrong_passwords_get_the_same_answer_to_the_byte(
    client: JsonClient, people: list[str]
) -> None:
    answers = [shown(log_in(client, identifier)) for identifier in people]

    assert answers[0][0] == 401
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.both_databases
def test_every_locked_identifier_gets_an_identical_response(
    client: JsonClient, people: list[str], clock: ManualClock
) -> None:
    """Known or not, with a right password or a wrong one."""
    answers = []
    for identifier in ["robin", "nobody", "sus", "pen"]:
        for _ in range(5):
            log_in(client, identifier)
        answers.append(log_in(client, identifier))
        answers.append(log_in(client, identifier, "heron-marble-94-lantern"))

    seconds = {int(answer.headers.pop("Retry-After")) for answer in answers}

    assert max(seconds) - min(seconds) <= 5  # What the other log-ins took.
    assert {answer.status_code for answer in answers} == {429}
    assert len({shown(answer)[1] for answer in answers}) == 1
    assert len({str(shown(answer)[2]) for answer in answers}) == 1


@pytest.mark.both_databases
@pytest.mark.parametrize(
    "path", ["/api/v1/auth/reset-password", "/api/v1/auth/verify-email/resend"]
)
def test_asking_for_a_mail_gets_the_same_answer_to_the_byte(
    client: JsonClient, people: list[str], path: str
) -> None:
    addresses = [f"{name}@example.com" for name in ("robin", "nobody", "sus", "pen", "was")]

    answers = [
        shown(client.post(path, json={"email": a}, headers={"X-Correlation-ID": CORRELATION}))
        for a in addresses
    ]

    assert answers[0][0] == 202
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.slow
def test_wrong_passwords_take_the_same_time(
    make_app: Callable[..., Flask], make_user: MakeUser
) -> None:
    """Compared round by round, so that what else the machine does strikes all alike.

    The typical difference must be less than a millisecond, give or take four standard errors of
    its estimate; a hash that is left out would make it twenty.
    """
    app = make_app(PASSWORD_HASH_ROUNDS="9", LOCKOUT_THRESHOLD="1000")
    client = JsonClient(app)
    make_user("robin")
    make_user("sus", status=UserStatus.SUSPENDED)
    # Made at a lower cost, the hashes of tests would tell: the first good log-in makes them anew.
    for name in ("robin", "sus"):
        with app.app_context():
            services = app.extensions["userapi"]
            view = services.accounts.get_by_name(name)
            services.password_assignment.assign(
                view.id, "granite-otter-57-teapot", actor=system_actor("tests")
            )
    taken: dict[str, list[float]] = {"robin": [], "nobody": [], "sus": []}
    for round_number in range(400):
        for name in _rotated(list(taken), round_number):
            begun = time.perf_counter()
            log_in(client, name)
            taken[name].append(time.perf_counter() - begun)

    assert statistics.median(taken["nobody"]) > 0.01  # A hash at a cost of 9 takes about 0.02.
    for name in ("nobody", "sus"):
        pairs = zip(taken["robin"], taken[name], strict=True)
        typical, error = _typical([one - other for one, other in pairs])
        assert abs(typical) < 0.001 + 4 * error, (name, typical, error)


def _typical(differences: list[float]) -> tuple[float, float]:
    """Return the median and its standard error, by the median of how far the others are off."""
    median = statistics.median(differences)
    spread = 1.4826 * statistics.median(abs(value - median) for value in differences)
    return median, 1.2533 * spread / math.sqrt(len(differences))


def _rotated(names: list[str], number: int) -> list[str]:
    start = number % len(names)
    return names[start:] + names[:start]
