"""The commands about second factors, and what other commands and figures show of them."""

import json
import re
from collections.abc import Callable

import pytest
from click.testing import Result
from flask import Flask

from tests.support.client import JsonClient
from tests.support.second_factors import App, add_app, begin_step, code_of, second_step
from tests.support.users import LogIn, MadeUser, MakeUser
from userapi.clock import ManualClock

PASSWORD = "violet-harbour-93-lantern"

pytestmark = pytest.mark.both_databases


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


@pytest.fixture
def phone(robin: MadeUser, log_in: LogIn, clock: ManualClock) -> App:
    return add_app(log_in(robin), clock, name="Phone")


@pytest.fixture
def demanding(make_app: Callable[..., Flask]) -> Flask:
    return make_app(MFA_REQUIRED_ROLES="moderator,helpdesk")


def flask(app: Flask, *arguments: str, stdin: str | None = None) -> Result:
    result = app.test_cli_runner().invoke(args=list(arguments), input=stdin)
    assert result.exit_code == 0, result.output
    return result


def test_a_user_is_shown_with_the_factors(app: Flask, phone: App) -> None:
    text = flask(app, "users", "show", "robin").output
    document = json.loads(flask(app, "users", "show", "robin", "--json").output)

    assert re.search(r"^recovery_codes_left: +10$", text, re.MULTILINE)
    assert re.search(r"^factor: +totp Phone \(added .*, never used\)$", text, re.MULTILINE)
    assert document["mfa"]["factors"][0]["name"] == "Phone"
    assert document["mfa_enabled"] is True
    assert phone.secret not in text + str(document)


def test_the_status_shows_who_lacks_a_demanded_factor(
    demanding: Flask, make_user: MakeUser, phone: App, log_in: LogIn, clock: ManualClock
) -> None:
    """Admins inherit from moderators, so the role demands a factor of them as well."""
    make_user("mod", roles=["moderator"])
    make_user("boss", roles=["admin"])
    add_app(log_in(make_user("chief", roles=["superadmin"])), clock)

    document = json.loads(flask(demanding, "mfa", "status", "--json").output)
    text = flask(demanding, "mfa", "status").output

    roles = {
        item["role"]: (item["users"], item["with_factor"], item["demanded_without"])
        for item in document["roles"]
    }
    assert roles == {
        "admin": (1, 0, 1),
        "moderator": (1, 0, 1),
        "superadmin": (1, 1, 0),
        "user": (1, 1, 0),
    }
    assert (document["enabled"], document["demanded_without"]) == (2, 2)
    assert document["passkeys_of_other_rp_ids"] == 0
    assert re.search(r"^admin +1 +0 +yes +1$", text, re.MULTILINE)
    assert re.search(r"^user +1 +1 +no +0$", text, re.MULTILINE)


def test_the_statistics_count_who_has_and_who_lacks_a_factor(
    demanding: Flask, make_user: MakeUser, log_in: LogIn, phone: App
) -> None:
    boss = log_in(make_user("boss", roles=["admin"]))
    plain = boss.get("/api/v1/users/stats?days=1").get_json()["mfa"]
    # This administrator may only add a factor where the role demands one, so another reads.
    services = demanding.extensions["userapi"]
    with demanding.app_context():
        figures = services.statistics.figures(1)

    assert plain == {"enabled": 1, "demanded_without": 0}
    assert (figures.mfa.enabled, figures.mfa.demanded_without) == (1, 1)


def test_the_doctor_names_demanding_roles_that_do_not_exist(app: Flask, demanding: Flask) -> None:
    assert "MFA_REQUIRED_ROLES" not in flask(app, "doctor").output

    assert "roles that do not exist: helpdesk" in flask(demanding, "doctor").output


def test_seeded_users_have_apps_that_work(app: Flask, clock: ManualClock) -> None:
    seeded = flask(
        app,
        *("seed", "--users", "60", "--fixed", "--mfa-percent", "50", "--password-stdin"),
        stdin=PASSWORD + "\n",
    )
    secret = re.search(r"^ {4}([A-Z2-7]{32})$", seeded.output, re.MULTILINE)
    assert secret is not None
    listed = json.loads(flask(app, "users", "list", "--limit", "60", "--json").output)["items"]
    with_app = [user for user in listed if user["mfa_enabled"]]
    begin_step(clock)

    first = JsonClient(app).post(
        "/api/v1/auth/login", json={"username": with_app[0]["username"], "password": PASSWORD}
    )
    second = second_step(app, first.get_json()["mfa_token"], code_of(secret[1], clock))

    assert 15 <= len(with_app) <= 45
    assert first.get_json()["methods"] == ["totp"]
    assert second.status_code == 200


def test_users_can_be_seeded_without_apps(app: Flask) -> None:
    output = flask(app, "seed", "--users", "30", "--mfa-percent", "0").output

    assert "authenticator app" not in output
    listed = json.loads(flask(app, "users", "list", "--json").output)["items"]
    assert not any(user["mfa_enabled"] for user in listed)
