"""IP addresses have one form wherever they are stored, counted, shown or searched."""

from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy import update

from tests.support.client import JsonClient
from tests.support.facts import audit_rows
from tests.support.users import PASSWORD, LogIn, MakeUser, SignedInClient
from userapi.actor import Actor, ActorType
from userapi.audit.actions import AuditAction
from userapi.infrastructure.database import transaction
from userapi.infrastructure.network_addresses import canonical_address
from userapi.sessions.models import UserSession
from userapi.wiring.services import Services

LOGIN = "/api/v1/auth/login"
LOG = "/api/v1/audit-logs/"
MakeApp = Callable[..., Flask]
SPELLINGS = ["203.0.113.7", "::ffff:203.0.113.7", "::FFFF:CB00:7107", "::ffff:203.0.113.7%eth0"]


@pytest.mark.parametrize(
    ("written", "address"),
    [
        *[(spelling, "203.0.113.7") for spelling in SPELLINGS],
        ("203.0.113.7:41000", "203.0.113.7"),
        ("[::ffff:203.0.113.7]:41000", "203.0.113.7"),
        ("2001:0DB8:0000:0000::0007", "2001:db8::7"),
        ("fe80::1%eth0", "fe80::1"),
        ("", None),
        ("unknown", None),
        ("203.0.113", None),
        ("203.0.113.07", None),
        ("203.0.113.0/24", None),
    ],
)
def test_an_address_has_one_form(written: str, address: str | None) -> None:
    assert canonical_address(written) == address


@pytest.fixture
def admin(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["admin"]))


@pytest.mark.parametrize("address", SPELLINGS)
def test_the_address_of_a_socket_is_stored_in_its_one_form(
    app: Flask, client: JsonClient, make_user: MakeUser, address: str
) -> None:
    """A dual-stack socket writes IPv4 addresses as IPv6, and filters missed those rows."""
    make_user("robin")

    answer = client.from_address(address).post(
        LOGIN, json={"username": "robin", "password": PASSWORD}
    )

    robin = client.as_user(answer.get_json()["access_token"])
    assert [row.ip_address for row in audit_rows(app, action="auth.login")] == ["203.0.113.7"]
    (session,) = robin.get("/api/v1/auth/sessions").get_json()["items"]
    assert session["ip_address"] == "203.0.113.7"


@pytest.mark.parametrize("address", [*SPELLINGS, "[::ffff:203.0.113.7]:4711"])
def test_the_address_of_a_proxy_is_stored_in_its_one_form(
    make_app: MakeApp, make_user: MakeUser, address: str
) -> None:
    make_user("robin")
    app = make_app(TRUSTED_PROXY_COUNT="1")

    JsonClient(app).post(
        LOGIN,
        json={"username": "robin", "password": PASSWORD},
        headers={"X-Forwarded-For": address},
    )

    assert [row.ip_address for row in audit_rows(app, action="auth.login")] == ["203.0.113.7"]


def test_all_spellings_of_an_address_count_together(make_app: MakeApp) -> None:
    app = make_app(RATE_LIMIT_ENABLED="true", RATE_LIMIT_DEFAULT="2/minute")

    given = [
        JsonClient(app, ip_address=address).get("/api/v1/roles/").status_code
        for address in SPELLINGS
    ]

    assert given == [401, 401, 429, 429]


@pytest.mark.parametrize("spelling", [*SPELLINGS, " 203.0.113.7 ", "[::ffff:cb00:7107]"])
def test_the_filter_takes_any_spelling(
    services: Services, app: Flask, admin: SignedInClient, spelling: str
) -> None:
    """Rows are never changed, so those of earlier releases have other spellings."""
    addresses = ["203.0.113.7", "::ffff:203.0.113.7", "203.0.113.8", "::ffff:cb00:7107"]
    with app.app_context():
        for address in addresses:
            services.audit.record_alone(
                AuditAction.AUTH_LOGOUT,
                actor=Actor(type=ActorType.USER, username="robin", ip_address=address),
            )

    first = admin.get(LOG, query={"ip_address": spelling, "page_size": 2}).get_json()
    rest = admin.get(
        LOG, query={"ip_address": spelling, "page_size": 2, "cursor": first["next_cursor"]}
    ).get_json()
    exported = admin.get(f"{LOG}export", query={"ip_address": spelling, "format": "csv"})
    listed = app.test_cli_runner().invoke(args=["audit", "list", "--ip-address", spelling])

    found = [row["ip_address"] for row in [*first["items"], *rest["items"]]]
    assert found == ["::ffff:cb00:7107", "::ffff:203.0.113.7", "203.0.113.7"]
    assert (first["total"], rest["next_cursor"]) == (3, None)
    assert exported.text.count("auth.logout") == 3
    assert "3 of 3 shown." in listed.output


def test_the_filter_accepts_every_notation_of_ipv6(
    services: Services, app: Flask, admin: SignedInClient
) -> None:
    with app.app_context():
        services.audit.record_alone(
            AuditAction.AUTH_LOGOUT, actor=Actor(username="robin", ip_address="2001:db8::7")
        )

    found = admin.get(LOG, query={"ip_address": "2001:0DB8::0:7"}).get_json()

    assert [row["action"] for row in found["items"]] == ["auth.logout"]


@pytest.mark.parametrize("text", ["not-an-ip", "203.0.113", "203.0.113.0/24", "", "1" * 200])
def test_what_is_no_address_is_refused_by_the_filter(
    app: Flask, admin: SignedInClient, text: str
) -> None:
    """The response was an empty list."""
    answers = [admin.get(path, query={"ip_address": text}) for path in (LOG, f"{LOG}export")]
    command = app.test_cli_runner().invoke(args=["audit", "list", "--ip-address", text])

    for answer in answers:
        problem = answer.get_json()
        assert (answer.status_code, problem["code"]) == (422, "validation_failed")
        assert [error["field"] for error in problem["errors"]] == ["ip_address"]
    if text and len(text) < 100:
        assert problem["errors"][0]["code"] == "invalid_address"
    assert command.exit_code == 1
    assert "ip_address: Must be an IP address" in command.output


def test_controls_are_taken_out_of_the_user_agent(
    app: Flask, client: JsonClient, make_user: MakeUser
) -> None:
    """C1 controls, such as CSI, are commands for a terminal like those that begin with ESC."""
    make_user("robin")

    answer = client.post(
        LOGIN,
        json={"username": "robin", "password": PASSWORD},
        headers={"User-Agent": "curl/8 \x9b31m\x85red"},
    )

    robin = client.as_user(answer.get_json()["access_token"])
    (session,) = robin.get("/api/v1/auth/sessions").get_json()["items"]
    assert session["user_agent"] == "curl/8 31mred"
    assert [r.user_agent for r in audit_rows(app, action="auth.login")] == ["curl/8 31mred"]


def test_sessions_of_earlier_releases_are_shown_in_the_one_form(
    app: Flask, make_user: MakeUser, log_in: LogIn
) -> None:
    robin = log_in(make_user("robin"))
    with app.app_context(), transaction() as session:
        session.execute(
            update(UserSession).values(ip_address="::ffff:203.0.113.7", user_agent="x\x9b31m")
        )

    (shown,) = robin.get("/api/v1/auth/sessions").get_json()["items"]

    assert (shown["ip_address"], shown["user_agent"]) == ("203.0.113.7", "x31m")
