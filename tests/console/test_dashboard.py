"""The dashboard."""

import pytest
from flask import Flask

from tests.console.conftest import SignIn
from tests.support.client import JsonClient
from tests.support.pages import PageReader, words
from tests.support.users import LogIn, MakeUser
from userapi.clock import ManualClock

pytestmark = pytest.mark.both_databases


@pytest.fixture
def boss(sign_in: SignIn) -> PageReader:
    """Return the browser of an administrator."""
    return sign_in(roles=("admin",))


def test_the_dashboard_counts_and_draws_each_day(
    app: Flask, boss: PageReader, make_user: MakeUser, clock: ManualClock
) -> None:
    make_user("robin")
    JsonClient(app).post("/api/v1/auth/login", json={"username": "robin", "password": "no-9"})

    clock.advance(minutes=1)  # Figures that were dear are kept for less.

    page = boss.get("/dashboard")

    assert page.text.count('class="bar-a"') == 4 * 30
    assert "2 users" in words(page) and "Database up" in words(page)
    assert "Failed log-ins a day 1 in 30 days 2 1 0" in words(page)
    assert "admin 1 moderator 0" in words(page)


def test_the_upper_edge_of_a_chart_is_a_round_number(
    boss: PageReader, make_user: MakeUser, log_in: LogIn, clock: ManualClock
) -> None:
    robin = make_user("robin")
    for _ in range(11):
        log_in(robin)

    clock.advance(minutes=1)

    page = words(boss.get("/dashboard"))

    assert "Log-ins a day 12 in 30 days 20 10 0" in page


def test_a_moderator_sees_figures_but_not_the_state_of_servers(sign_in: SignIn) -> None:
    page = words(sign_in(roles=("moderator",)).get("/dashboard"))

    assert "live sessions" in page and "Health" not in page


def test_a_plain_user_begins_with_the_own_profile(sign_in: SignIn) -> None:
    assert sign_in().get("/").location == "/console/profile"
