"""The dashboard."""

import re
from datetime import timedelta

import pytest
from flask import Flask

from tests.console.conftest import SignIn
from tests.support.client import JsonClient
from tests.support.machines import make_key, make_service
from tests.support.pages import PageReader, words
from tests.support.users import LogIn, MakeUser
from userapi.clock import ManualClock, rfc3339

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


@pytest.mark.parametrize(
    ("log_ins", "shown"), [(11, "12 in 30 days 20 10 0"), (40, "41 in 30 days 60 30 0")]
)
def test_the_upper_edge_of_a_chart_is_a_round_number(
    boss: PageReader,
    make_user: MakeUser,
    log_in: LogIn,
    clock: ManualClock,
    log_ins: int,
    shown: str,
) -> None:
    """Bars fill at least half of the height. The edge above 41 was 100."""
    robin = make_user("robin")
    for _ in range(log_ins):
        log_in(robin)

    clock.advance(minutes=1)

    page = words(boss.get("/dashboard"))

    assert f"Log-ins a day {shown}" in page


def test_a_moderator_sees_figures_but_not_the_state_of_servers(sign_in: SignIn) -> None:
    page = words(sign_in(roles=("moderator",)).get("/dashboard"))

    assert "live sessions" in page and "Health" not in page


def test_the_dashboard_counts_service_accounts_and_their_keys(
    app: Flask, boss: PageReader, make_user: MakeUser, log_in: LogIn, clock: ManualClock
) -> None:
    owner = log_in(make_user("owner", roles=("superadmin",)))
    worker = make_service(owner, "media-worker", expires_at=None)
    asleep = make_service(owner, "old-importer", expires_at="2999-01-01T00:00:00Z")
    owner.post(f"{asleep.path}/suspend", json={})
    soon = rfc3339(clock.now() + timedelta(days=13))
    later = rfc3339(clock.now() + timedelta(days=15))
    make_key(owner, worker.keys_path, name="nightly", expires_at=soon)
    make_key(owner, worker.keys_path, name="weekly", expires_at=later)
    # Those of users are not counted.
    make_key(owner, "/api/v1/users/me/api-keys/", expires_at=soon)
    rotated = make_key(owner, worker.keys_path, name="replaced", expires_at=later)
    assert owner.post(f"{rotated.path}/rotate", json={}).status_code == 201
    assert JsonClient(app, token=worker.key.text).get("/api/v1/auth/verify").status_code == 200

    page = words(boss.get("/dashboard"))

    assert "1 active account 1 suspended account" in page
    assert "1 account with a key that expires within 14 days" in page
    assert "1 account with a key that never expires" in page
    assert "Next keys to expire media-worker : nightly" in page
    assert "weekly," not in page and "replaced," not in page


def test_the_figures_of_keys_lead_to_their_accounts(
    app: Flask, boss: PageReader, make_user: MakeUser, log_in: LogIn, clock: ManualClock
) -> None:
    owner = log_in(make_user("owner", roles=("superadmin",)))
    used = make_service(owner, "used", expires_at=rfc3339(clock.now() + timedelta(days=13)))
    make_service(owner, "unused", expires_at="2999-01-01T00:00:00Z")
    endless = make_service(owner, "endless", expires_at=None)
    # Further keys of an account make no further row in the list.
    make_key(owner, endless.keys_path, expires_at=None)
    revoked = make_service(owner, "revoked", expires_at=None)
    owner.delete(revoked.key.path)
    for service in (used, endless):
        assert JsonClient(app, token=service.key.text).get("/api/v1/auth/verify").status_code == 200

    dashboard = boss.get("/dashboard").text

    for attention, names in (
        ("expiring", ["used"]),
        ("unused", ["endless", "unused"]),
        ("endless", ["endless"]),
    ):
        address = f"/service-accounts?keys={attention}"
        listed = re.findall(r'service-accounts/[0-9a-f-]{36}">([a-z]+)<', boss.get(address).text)
        tile = f'<strong>{len(names)}</strong><a href="/console{address}">'
        assert sorted(listed) == names and tile in dashboard
    assert boss.get("/service-accounts?keys=old").status_code == 422


def test_service_accounts_are_shown_to_those_who_may_see_them(sign_in: SignIn) -> None:
    page = words(sign_in(roles=("moderator",)).get("/dashboard"))

    assert "suspended account" not in page


def test_a_plain_user_begins_with_the_own_profile(sign_in: SignIn) -> None:
    assert sign_in().get("/").location == "/console/profile"
