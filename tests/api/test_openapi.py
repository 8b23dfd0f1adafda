"""The OpenAPI document is valid, complete and matches the routes."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from openapi_spec_validator import validate

from tests.support.client import JsonClient
from tests.support.users import LogIn, MakeUser
from userapi.api.openapi_texts import OPERATION_IDS
from userapi.errors import Members

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture
def document(client: JsonClient) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").get_json()
    return document


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in METHODS & item.keys():
            yield f"{method.upper()} {path}", item[method]


def test_requests_that_come_together_get_the_same_document(
    make_app: Callable[..., Flask], document: dict[str, Any]
) -> None:
    """The first request builds it, a second one must not see half of it."""
    app = make_app()

    with ThreadPoolExecutor(4) as pool:
        replies = pool.map(lambda _: JsonClient(app).get("/openapi.json").get_json(), range(4))

    assert all(reply == document for reply in replies)


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_every_route_of_the_api_is_documented(app: Flask, document: dict[str, Any]) -> None:
    documented = {name for name, _ in operations(document)}
    routes = {
        f"{method} {rule.rule.replace('<uuid:', '{').replace('<', '{').replace('>', '}')}"
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }

    assert routes <= documented


def test_every_operation_has_a_summary_a_tag_and_its_security(document: dict[str, Any]) -> None:
    bare = [
        name
        for name, operation in operations(document)
        if not operation.get("summary") or not operation.get("tags") or "security" not in operation
    ]

    assert bare == []


def test_every_operation_documents_its_errors_as_problems(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        responses = operation["responses"]
        expected = {"429", "500", "503"} | ({"401"} if operation["security"] else set())
        if "requestBody" in operation:
            expected |= {"400", "413", "415"}
            if "/auth/token" not in str(name):  # Its errors are those of OAuth.
                expected |= {"422"}
        assert expected <= responses.keys(), name
        for status, response in responses.items():
            if status >= "400" and "Readiness" not in str(response):
                content = response["content"]
                is_oauth = "/auth/token" in str(name)
                expected_type = "application/json" if is_oauth else "application/problem+json"
                assert list(content) == [expected_type], (name, status)
                assert "`" in response["description"], (name, status)


def test_every_body_has_examples(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name, operation in operations(document):
        body = operation.get("requestBody")
        if body is None or "application/json" not in body["content"]:
            continue
        reference = body["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        required = schemas[reference].get("required", [])
        for member in required:
            described = schemas[reference]["properties"][member]
            assert "example" in described, (name, reference, member)


def test_every_operation_has_a_name_of_its_own(app: Flask, document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]
    chosen = set(OPERATION_IDS.values())

    assert [name for name in names if name not in chosen] == []
    assert len(names) == len(set(names))
    assert {"login", "list_users", "suspend_user"} <= set(names)
    assert OPERATION_IDS.keys() <= app.view_functions.keys()


def test_responses_declare_their_required_members(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    assert schemas["User"]["required"] == sorted(schemas["User"]["properties"])
    assert schemas["UserPage"]["required"] == sorted(schemas["UserPage"]["properties"])
    assert schemas["Introspected"]["required"] == ["active"]
    assert schemas["BulkResult"]["required"] == ["id", "status"]
    problem = schemas["Problem"]
    sometimes = set(problem["properties"]) - set(problem["required"])
    of_oauth = {"error", "error_description"}
    assert sometimes == {"errors"} | of_oauth | set(Members.__annotations__)
    # A body accepts no other members. Later releases may add members to a response.
    assert schemas["UserCreation"]["required"] == ["email", "username"]
    assert schemas["UserCreation"]["additionalProperties"] is False
    assert "additionalProperties" not in schemas["User"]


def test_every_member_and_parameter_has_a_description(document: dict[str, Any]) -> None:
    bare = [
        f"{schema}.{name}"
        for schema, described in document["components"]["schemas"].items()
        for name, member in described.get("properties", {}).items()
        if not {"description", "$ref", "allOf"} & member.keys()
    ]
    holders = [*document["paths"].values(), *(operation for _, operation in operations(document))]
    bare += [
        parameter["name"]
        for holder in holders
        for parameter in holder.get("parameters", [])
        if not parameter.get("description")
    ]

    assert bare == []


def test_constants_and_files_are_described_for_generators(document: dict[str, Any]) -> None:
    token_type = document["components"]["schemas"]["Tokens"]["properties"]["token_type"]
    introspected = document["components"]["schemas"]["Introspected"]["properties"]["token_type"]

    assert (token_type["type"], token_type["enum"]) == ("string", ["bearer"])
    assert introspected["enum"] == ["access", "refresh", "api_key"]
    assert '"binary"' not in json.dumps(document)


def test_clients_can_authorize_themselves_in_the_document(document: dict[str, Any]) -> None:
    """Swagger UI offers each of these schemes behind "Authorize"."""
    schemes = document["components"]["securitySchemes"]

    flow = schemes["client_credentials"]["flows"]["clientCredentials"]
    assert flow == {"tokenUrl": "/api/v1/auth/token", "scopes": {}}
    assert (schemes["client_credentials"]["type"], schemes["client"]["scheme"]) == (
        "oauth2",
        "basic",
    )
    offered = [
        operation["operationId"]
        for _, operation in operations(document)
        if {"bearer": []} in operation["security"]
        and {"client_credentials": []} not in operation["security"]
    ]
    # Those that are about a person, and no others.
    assert {"list_own_sessions", "change_password"} & set(offered)
    assert "list_users" not in offered and "verify" not in offered
    introspection = document["paths"]["/api/v1/auth/introspect"]["post"]["security"]
    assert {"client": []} in introspection
    token = document["paths"]["/api/v1/auth/token"]["post"]
    assert token["security"] == []
    assert set(token["responses"]["401"]["content"]) == {"application/json"}


def test_the_public_paths_outside_of_the_api_are_documented(document: dict[str, Any]) -> None:
    paths = document["paths"]

    assert {"/", "/metrics", "/.well-known/jwks.json", "/.well-known/security.txt"} <= paths.keys()
    assert paths["/metrics"]["get"]["security"] == [{}, {"bearer": []}]
    assert paths["/.well-known/jwks.json"]["get"]["security"] == []


def test_headers_of_requests_and_responses_are_documented(document: dict[str, Any]) -> None:
    def headers(path: str, method: str) -> set[str]:
        parameters = document["paths"][path][method].get("parameters", [])
        return {p["name"] for p in parameters if p["in"] == "header"}

    assert headers("/api/v1/users/", "post") == {"Idempotency-Key"}
    assert headers("/api/v1/auth/register", "post") == {"Idempotency-Key"}
    assert headers("/api/v1/users/{user_id}", "patch") == {"If-Match"}
    assert headers("/api/v1/users/{user_id}", "get") == set()


def test_every_refusal_has_an_example(document: dict[str, Any]) -> None:
    examples = document["components"]["examples"]
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            content = response.get("content", {}).get("application/problem+json", {})
            for code, reference in content.get("examples", {}).items():
                example = reference["$ref"].removeprefix("#/components/examples/")
                assert example in (code, f"{code}_{status}"), (name, status)
                value = examples[example]["value"]
                assert (value["code"], str(value["status"])) == (code, status), name
    assert len(examples) > 30


def test_every_text_of_an_answer_has_an_example(document: dict[str, Any]) -> None:
    bare = [
        f"{schema}.{name}"
        for schema, described in document["components"]["schemas"].items()
        if described.get("additionalProperties") is not False  # That would be a body.
        for name, member in described.get("properties", {}).items()
        if member.get("type") == "string"
        and not member.get("writeOnly")
        and not {"example", "enum", "format", "default", "const"} & member.keys()
    ]

    assert bare == []


def test_the_access_to_every_operation_is_documented(document: dict[str, Any]) -> None:
    """A docstring of more than one line replaced the permission."""
    paths = document["paths"]

    assert "`users:export`" in paths["/api/v1/users/export"]["get"]["description"]
    assert "`roles:manage`" in paths["/api/v1/roles/{name}"]["put"]["description"]


def test_summaries_are_one_line_and_the_rest_is_below(document: dict[str, Any]) -> None:
    logout = document["paths"]["/api/v1/auth/logout"]["post"]

    assert logout["summary"] == "End the session of this token, or every session of its user"
    assert logout["description"].startswith("Can be repeated.")
    assert [n for n, o in operations(document) if len(o["summary"]) > 80] == []


def test_the_document_has_a_contact(make_app: Callable[..., Flask]) -> None:
    def contact(address: str) -> Any:
        app = make_app(SECURITY_CONTACT=address, DOCS_ENABLED="true")
        return JsonClient(app).get("/openapi.json").get_json()["info"]["contact"]

    assert contact("mailto:it@example.com") == {"name": "Operator", "email": "it@example.com"}
    assert contact("https://example.com/help") == {
        "name": "Operator",
        "url": "https://example.com/help",
    }


def test_the_example_of_a_body_is_a_valid_request(
    document: dict[str, Any], make_user: MakeUser, log_in: LogIn
) -> None:
    boss, robin = log_in(make_user("boss", roles=["superadmin"])), make_user("robin")

    def example(path: str, method: str) -> Any:
        body = document["paths"][path][method]["requestBody"]
        return body["content"]["application/json"]["example"]

    created = boss.post("/api/v1/users/", json=example("/api/v1/users/", "post"))
    updated = boss.patch(
        f"/api/v1/users/{robin.id}", json=example("/api/v1/users/{user_id}", "patch")
    )
    many = boss.post("/api/v1/users/bulk", json=example("/api/v1/users/bulk", "post"))

    assert [created.status_code, updated.status_code, many.status_code] == [201, 200, 200]


def test_an_import_documents_its_query_and_the_preference(document: dict[str, Any]) -> None:
    """The header was documented in place of the query parameter, so clients had no dry run."""
    operation = document["paths"]["/api/v1/users/import"]["post"]

    assert {(p["in"], p["name"]) for p in operation["parameters"]} == {
        ("query", "dry_run"),
        ("header", "Prefer"),
    }
    assert {"200", "202"} <= operation["responses"].keys()
