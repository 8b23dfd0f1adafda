"""The OpenAPI document: valid, complete, and true to the routes."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from openapi_spec_validator import validate

from tests.support.client import JsonClient

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture
def document(client: JsonClient) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").get_json()
    return document


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in METHODS & item.keys():
            yield f"{method.upper()} {path}", item[method]


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


def test_every_operation_tells_its_errors_as_problems(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        responses = operation["responses"]
        expected = {"429", "500", "503"} | ({"401"} if operation["security"] else set())
        if "requestBody" in operation:
            expected |= {"400", "413", "415", "422"}
        assert expected <= responses.keys(), name
        for status, response in responses.items():
            if status >= "400" and "Readiness" not in str(response):
                content = response["content"]
                assert list(content) == ["application/problem+json"], (name, status)
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


def test_the_headers_that_matter_are_documented(document: dict[str, Any]) -> None:
    def headers(path: str, method: str) -> set[str]:
        parameters = document["paths"][path][method].get("parameters", [])
        return {p["name"] for p in parameters if p["in"] == "header"}

    assert headers("/api/v1/users/", "post") == {"Idempotency-Key"}
    assert headers("/api/v1/auth/register", "post") == {"Idempotency-Key"}
    assert headers("/api/v1/users/{user_id}", "patch") == {"If-Match"}
    assert headers("/api/v1/users/{user_id}", "get") == set()
