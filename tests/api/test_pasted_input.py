"""Pasted and typed input: blanks around identifiers, invisible names, languages and zones."""

from collections.abc import Mapping

import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.mailbox import Mailbox
from tests.support.users import PASSWORD, LogIn, MakeUser

NEW_PASSWORD = "granite-otter-57-teapot"
REGISTER = "/api/v1/auth/register"
LOGIN = "/api/v1/auth/login"
AROUND = ["{} ", "\t{}\n", "\u00a0{}\u00a0", "\u200b{}", "\ufeff{}", "\u202a{}\u202c"]


@pytest.mark.parametrize("pasted", AROUND)
def test_blanks_around_an_identifier_are_ignored(
    client: JsonClient, pasted: str, make_user: MakeUser
) -> None:
    make_user("robin")

    by_name = client.post(LOGIN, json={"username": pasted.format("robin"), "password": PASSWORD})
    by_address = client.post(
        LOGIN, json={"username": pasted.format("robin@example.com"), "password": PASSWORD}
    )

    assert (by_name.status_code, by_address.status_code) == (200, 200)


def test_blanks_around_a_name_do_not_make_it_a_different_name(client: JsonClient) -> None:
    body = {"username": " ada\u00a0", "email": "\tada@example.com\u200b", "password": PASSWORD}
    made = client.post(REGISTER, json=body)
    again = client.post(REGISTER, json=body | {"email": "other@example.com", "username": "ada"})

    user = made.get_json()
    assert (user["username"], user["email"]) == ("ada", "ada@example.com")
    assert (again.status_code, again.get_json()["code"]) == (409, "username_taken")


def test_blanks_around_an_identifier_do_not_evade_the_lockout(client: JsonClient) -> None:
    bodies = [{"username": name, "password": "wrong-one-1"} for name in ("ada", " ada", "ada\t")]

    given = [client.post(LOGIN, json=body).status_code for body in bodies * 2]

    assert given == [401] * 5 + [429]


def test_blanks_around_a_password_are_part_of_it(client: JsonClient, make_user: MakeUser) -> None:
    make_user("robin")

    answer = client.post(LOGIN, json={"username": "robin", "password": f"{PASSWORD} "})

    assert answer.status_code == 401


def test_control_characters_in_an_identifier_are_rejected(client: JsonClient) -> None:
    answer = client.post(LOGIN, json={"username": "ro\tbin", "password": PASSWORD})

    assert answer.status_code == 422


def test_a_reset_works_with_blanks_around_address_and_code(
    app: Flask, client: JsonClient, make_user: MakeUser
) -> None:
    make_user("robin")

    asked = client.post("/api/v1/auth/reset-password", json={"email": " robin@example.com\n"})
    token = Mailbox(app).token()
    done = client.post(
        "/api/v1/auth/reset-password/confirm",
        json={"token": f"\u00a0{token}\r\n", "new_password": NEW_PASSWORD},
    )

    assert (asked.status_code, done.status_code) == (202, 204)
    answer = client.post(LOGIN, json={"username": "robin", "password": NEW_PASSWORD})
    assert answer.status_code == 200


def test_a_filter_accepts_a_pasted_address(make_user: MakeUser, log_in: LogIn) -> None:
    admin = log_in(make_user("boss", roles=["admin"]))

    found = admin.get("/api/v1/users/", query={"email": " boss@example.com "}).get_json()

    assert [user["username"] for user in found["items"]] == ["boss"]


@pytest.mark.parametrize("name", ["   ", "\u3164", "\u00ad", "\ufeff", "\u200b\u200d", "\u2800"])
def test_an_invisible_name_is_rejected(
    client: JsonClient, make_user: MakeUser, log_in: LogIn, name: str
) -> None:
    """Lists showed an empty name, so users could not be told apart."""
    superadmin = log_in(make_user("boss", roles=["superadmin"]))

    def codes(path: str, body: Mapping[str, object], method: str = "POST") -> dict[str, str]:
        answer = superadmin.request(method, path, json=body)
        assert answer.status_code == 422, answer.text
        return {error["field"]: error["code"] for error in answer.get_json()["errors"]}

    both = {"first_name": name, "last_name": name}
    blank = {"first_name": "blank", "last_name": "blank"}
    user = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
    assert codes(REGISTER, user | both) == blank
    assert codes("/api/v1/users/", user | both) == blank
    assert codes("/api/v1/users/me", both, "PATCH") == blank
    role = {"name": "media-editor", "description": name}
    assert codes("/api/v1/roles/", role) == {"description": "blank"}


def test_an_import_rejects_an_invisible_name(make_user: MakeUser, log_in: LogIn) -> None:
    admin = log_in(make_user("boss", roles=["admin"]))

    answer = admin.post(
        "/api/v1/users/import",
        data='{"username":"ada","email":"ada@example.com","first_name":"\u3164"}',
        content_type="application/x-ndjson",
    )

    (row,) = answer.get_json()["results"]
    assert [(e["field"], e["code"]) for e in row["errors"]] == [("first_name", "blank")]


@pytest.mark.parametrize(
    "tag",
    [
        "de",
        "de-CH",
        "de_CH",
        "zh-Hant-TW",
        "es-419",
        "de-CH-1901",
        "en-US-u-hc-h12",
        "de-u-co-phonebk",
        "sl-rozaj-biske",
        "en-x-private",
    ],
)
def test_a_language_tag_is_stored_unchanged(make_user: MakeUser, log_in: LogIn, tag: str) -> None:
    """Extensions, which browsers send, were rejected."""
    robin = log_in(make_user("robin"))

    answer = robin.patch("/api/v1/users/me", json={"locale": tag})

    assert (answer.status_code, answer.get_json()["locale"]) == (200, tag)


@pytest.mark.parametrize(
    "tag",
    ["zh_CN.UTF-8", "en-US@posix", "en_US@euro", "C", "xx-US", "en-u", "en--US", "en-u-hc-u-ca"],
)
def test_an_invalid_language_tag_is_rejected(make_user: MakeUser, log_in: LogIn, tag: str) -> None:
    """Names of POSIX locales, which browsers do not support, were accepted."""
    robin = log_in(make_user("robin"))

    answer = robin.patch("/api/v1/users/me", json={"locale": tag})

    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["code"] == "invalid_locale"


@pytest.mark.parametrize("zone", ["localtime", "Factory", "posixrules", "posix/UTC", "right/UTC"])
def test_an_unknown_time_zone_is_rejected(make_user: MakeUser, log_in: LogIn, zone: str) -> None:
    robin = log_in(make_user("robin"))

    answer = robin.patch("/api/v1/users/me", json={"timezone": zone})

    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["code"] == "invalid_timezone"
