"""Completes the OpenAPI document of flask-smorest for generators of clients.

Operations get names, responses declare which members are always present, and members, parameters
and operations get descriptions from `openapi_texts`.
"""

import re
from collections.abc import Iterator
from typing import Any

from flask import Flask

from .openapi_texts import DESCRIPTIONS, OPERATION_IDS, PARAMETERS

Document = dict[str, Any]

METHODS = ("get", "post", "put", "patch", "delete")

# Members of responses that are sometimes absent; all other members are always present.
OPTIONAL_MEMBERS: dict[str, frozenset[str]] = {
    "AddedFactorAnswer": frozenset({"recovery_codes"}),
    "BulkResult": frozenset({"code"}),
    "Factor": frozenset({"credential_id", "backed_up", "transports"}),
    "ImportResult": frozenset({"id", "code", "errors"}),
    "Index": frozenset({"console", "docs", "redoc", "openapi"}),
    "Introspected": frozenset(
        {"sub", "sid", "username", "scope", "roles", "token_type", "exp", "iat", "iss", "aud"}
        | {"jti", "acr", "amr", "auth_time", "actor_type", "client_id", "key_id"}
        | {"allowed_networks"}
    ),
    "SecondStepAnswer": frozenset({"recovery_codes_left"}),
    "ClientToken": frozenset({"scope"}),
    # A service has no profile.
    "Myself": frozenset(
        {"email", "email_verified", "first_name", "last_name", "phone", "locale", "timezone"}
        | {"avatar_url", "status", "status_reason", "suspended_until", "metadata"}
        | {"must_change_password", "created_at", "updated_at", "last_login_at", "locked_until"}
        | {"acr", "amr", "authenticated_at", "mfa_enabled", "mfa_enrollment_required"}
    ),
    "Verified": frozenset({"acr", "amr", "authenticated_at"}),
    "JsonWebKey": frozenset({"crv", "x", "y", "n", "e"}),
}
# The other members of a problem depend on its code.
REQUIRED_IN_PROBLEMS = {
    *("type", "title", "status", "detail", "instance", "code", "correlation_id"),
}


def finish(document: Document, app: Flask) -> None:
    """Complete the document in place."""
    _name_operations(document, app)
    schemas: dict[str, Document] = document["components"]["schemas"]
    responses = set(_reachable(_responses_of(document), schemas)) | {"Problem"}
    bodies = set(_reachable(_bodies_of(document), schemas))
    for name in responses - bodies:
        _describe_response(name, schemas[name])
    for name, schema in schemas.items():
        _describe_members(name, schema)
    for _, _, operation in operations(document):
        _describe_parameters(operation)
    for item in document["paths"].values():
        _describe_parameters(item)


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Return the path, method and content of each operation."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def _name_operations(document: Document, app: Flask) -> None:
    for rule in app.url_map.iter_rules():
        item = document["paths"].get(re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule), {})
        for method in (rule.methods or set()) & {method.upper() for method in METHODS}:
            operation = item.get(method.lower())
            if operation is not None:
                *subject, function = rule.endpoint.split(".")
                by_name = "_".join([function, *subject])
                operation["operationId"] = OPERATION_IDS.get(rule.endpoint, by_name)


def _responses_of(document: Document) -> Iterator[Any]:
    for _, _, operation in operations(document):
        yield operation.get("responses")


def _bodies_of(document: Document) -> Iterator[Any]:
    for _, _, operation in operations(document):
        yield operation.get("requestBody")


def _reachable(places: Iterator[Any], schemas: dict[str, Document]) -> Iterator[str]:
    """Return the names of the schemas that these places refer to, directly or through others."""
    waiting, seen = list(places), set()
    while waiting:
        place = waiting.pop()
        if isinstance(place, list):
            waiting.extend(place)
        elif isinstance(place, dict):
            reference = place.get("$ref")
            if isinstance(reference, str) and reference.startswith("#/components/schemas/"):
                name = reference.rsplit("/", 1)[1]
                if name not in seen:
                    seen.add(name)
                    waiting.append(schemas[name])
                    yield name
            waiting.extend(value for key, value in place.items() if key != "example")


def _describe_response(name: str, schema: Document) -> None:
    """Declare the members that are always present, and allow more members in later versions."""
    schema.pop("additionalProperties", None)
    members = schema.get("properties", {})
    always = members.keys() - OPTIONAL_MEMBERS.get(name, frozenset())
    if name == "Problem":
        always = members.keys() & REQUIRED_IN_PROBLEMS
    if always:
        schema["required"] = sorted(always)
    for member in members.values():
        if "default" in member:
            _make_constant(member)


def _make_constant(member: Document) -> None:
    """Describe a constant as a type with one value."""
    value = member.pop("default")
    if isinstance(value, bool):
        member["type"] = "boolean"
    elif isinstance(value, str):
        member |= {"type": "string", "enum": [value]}


def _describe_members(name: str, schema: Document) -> None:
    for member, described in schema.get("properties", {}).items():
        _describe(described, DESCRIPTIONS.get(f"{name}.{member}") or DESCRIPTIONS.get(member))


def _describe_parameters(holder: Document) -> None:
    for parameter in holder.get("parameters", ()):
        name = parameter.get("name", "")
        _describe(parameter, PARAMETERS.get(name) or DESCRIPTIONS.get(name))


def _describe(described: Document, text: str | None) -> None:
    # OpenAPI 3.0 ignores other members of an object with a reference.
    if text and not {"description", "$ref", "allOf"} & described.keys():
        described["description"] = text
