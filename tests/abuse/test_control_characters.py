"""NUL and other control characters wherever a request can carry text, generated from the routes.

PostgreSQL refuses NUL in every text, and a line end in a redirect ends in an exception.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from marshmallow import Schema, fields
from werkzeug.routing import Rule

from tests.support.client import JsonClient
from tests.support.pages import PageReader, words
from tests.support.users import LogIn, MakeUser, SignedInClient
from userapi.api.blueprint import declarations_of

SOMEBODY = "01890000-0000-7000-8000-000000000000"
CONTROLS = ["\0", "\x01", "\r\n", "\x1b", "\x7f", "\x85", "\x9b"]
ESCAPED = ["%00", "%01", "%0d%0a", "%1b", "%7f", "%c2%85", "%c2%9b", "a%00b", "user%00"]

pytestmark = pytest.mark.both_databases


@pytest.fixture
def root(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("root", roles=("superadmin",)))


@pytest.fixture
def reader(app: Flask, make_user: MakeUser) -> PageReader:
    reader = PageReader(app)
    reader.sign_in(make_user("reader", roles=("superadmin",)))
    return reader


def operations(app: Flask) -> Iterator[tuple[str, Rule]]:
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield method, rule


def schemas(app: Flask, location: str) -> Iterator[tuple[str, Rule, Schema]]:
    """Return every operation that reads something by a schema at this location."""
    for method, rule in operations(app):
        documented = declarations_of(app.view_functions[rule.endpoint])
        for argument in documented.get("arguments", {}).get("parameters", ()):
            if argument["in"] == location:
                yield method, rule, argument["schema"]


def filled(rule: Rule) -> str:
    values = {name: SOMEBODY if "id" in name else "user" for name in rule.arguments}
    _, path = rule.build(values) or ("", rule.rule)
    return path


@pytest.mark.thorough
def test_a_text_in_a_path_with_control_characters_is_404(
    app: Flask, root: SignedInClient, reader: PageReader
) -> None:
    given = {}
    for method, rule in operations(app):
        texts = [name for name in rule.arguments if "id" not in name]
        for name in texts:
            for escaped in ESCAPED:
                path = rule.rule.replace(f"<{name}>", escaped).replace(f"<path:{name}>", escaped)
                if rule.endpoint.startswith("console."):
                    answer = reader.browser.open(path, method=method)
                else:
                    answer = root.request(method, path, json={} if method == "PUT" else None)
                given[method, path] = answer.status_code

    assert len(given) >= 7 * len(ESCAPED)
    assert set(given.values()) == {404}


@pytest.mark.thorough
def test_a_query_parameter_with_control_characters_is_422(app: Flask, root: SignedInClient) -> None:
    given: dict[tuple[str, str, str], Any] = {}
    for method, rule, schema in schemas(app, "query"):
        for name, field in schema.fields.items():
            for text in CONTROLS:
                answer = root.request(
                    method, filled(rule), query={field.data_key or name: f"a{text}b"}
                )
                given[rule.rule, name, text] = answer.status_code

    assert len({name for _, name, _ in given}) > 15
    others = {case: status for case, status in given.items() if status != 422}
    # A cursor is no text: what was changed in it is a damaged cursor. The import is not there.
    assert {(name, status) for (_, name, _), status in others.items()} <= {
        ("cursor", 400),
        ("cursor", 404),
    }


def test_a_text_in_a_body_with_control_characters_is_refused(
    app: Flask, client: JsonClient, root: SignedInClient
) -> None:
    given = {}
    for method, rule, schema in schemas(app, "json"):
        public = getattr(app.view_functions[rule.endpoint], "access", "") == "public"
        sender = client if public else root
        names = [name for name, field in schema.fields.items() if isinstance(field, fields.String)]
        for name in names:
            for text in CONTROLS:
                body = {other: "abcdefgh" for other in names} | {name: f"ab{text}cdefgh"}
                answer = sender.request(method, filled(rule), json=body)
                given[rule.rule, name, text] = answer.status_code

    assert len(given) > 100
    assert {case: status for case, status in given.items() if not 400 <= status < 500} == {
        # Told as an issue of the password; a lost token is ended without a word.
        case: status
        for case, status in given.items()
        if status in (200, 202)
        and case[0].rsplit("/", 1)[1] in ("password-strength", "revoke", "introspect")
    }


@pytest.mark.thorough
def test_a_filter_of_the_console_with_control_characters_shows_an_error(
    app: Flask, reader: PageReader
) -> None:
    given = {}
    for name in ("actor_id", "target_id", "correlation_id", "action", "since", "ip_address"):
        for text in ESCAPED:
            answer = reader.get(f"/audit?{name}={text}")
            given[name, text] = answer.status_code
            if answer.status_code == 422:
                assert len(words(answer)) > 100
    for name in ("search", "role", "status", "sort", "page_size", "version"):
        for text in ESCAPED:
            given[name, text] = reader.get(f"/users?{name}={text}").status_code

    assert {case: status for case, status in given.items() if status != 422} == {
        # The page size is a choice of the viewer: for any other one, the usual one is shown.
        (name, text): 200
        for name, text in given
        if name in ("version", "page_size")
    }


@pytest.mark.thorough
def test_every_page_accepts_any_query(app: Flask, reader: PageReader) -> None:
    given = {}
    for method, rule in operations(app):
        if rule.endpoint.startswith("console.") and method == "GET":
            for text in ESCAPED:
                names = (
                    "_scheme",
                    "_external",
                    "_anchor",
                    "_method",
                    "onward",
                    "version",
                    "v",
                    "page",
                    "cursor",
                    "q",
                    "format",
                    "days",
                    "all",
                )
                query = "&".join(f"{name}={text}" for name in names)
                given[rule.rule, text] = reader.browser.get(f"{filled(rule)}?{query}").status_code

    assert {case: status for case, status in given.items() if status >= 500} == {}


@pytest.mark.parametrize(
    "onward",
    [
        "/console/%0d%0a",
        "/console/%0d%0aSet-Cookie:%20a=b",
        "/console/%00",
        "/console/%c2%85",
        "/console/%e2%80%a8",
        "//evil.example/console/",
        "///console/",
        "/%5Cevil.example",
        "/console/%5C%5Cevil.example",
        "%5C%5Cevil.example",
        "https://evil.example/console/",
        "javascript:alert(1)",
        "/console//evil.example",
        "/console/../../evil",
        "/console/%252e%252e/%252e%252e/",
        "/console/.%252e/",
        "/consolething/",
        "%20/console/",
        "/console/%20",
        "/console/" + "a" * 3000,
        "%ff",
    ],
)
def test_what_leads_elsewhere_is_not_followed_after_a_sign_in(
    app: Flask, make_user: MakeUser, onward: str
) -> None:
    robin = make_user("robin")
    reader = PageReader(app)
    shown = reader.get(f"/sign-in?onward={onward}")

    answer = reader.post(
        f"/sign-in?onward={onward}", username=robin.username, password=robin.password
    )

    assert (shown.status_code, answer.status_code) == (200, 303)
    assert answer.location == "/console/"


@pytest.mark.parametrize(
    "onward",
    ["/console/users", "/console/users?search=a%2526b&page=2", "/console/roles/user", "/console/"],
)
def test_a_page_of_the_console_is_gone_on_to(app: Flask, make_user: MakeUser, onward: str) -> None:
    robin = make_user("robin")
    reader = PageReader(app)
    reader.get("/sign-in")

    answer = reader.browser.post(
        "/console/sign-in",
        query_string={"onward": onward},
        data={
            "csrf_token": reader.token,
            "username": robin.username,
            "password": robin.password,
        },
    )

    assert (answer.status_code, answer.location) == (303, onward)
