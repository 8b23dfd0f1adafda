"""Responses written without a schema have the documented shape."""

from typing import Any

import pytest

from tests.support.client import JsonClient
from tests.support.users import LogIn, MakeUser, SignedInClient


@pytest.fixture
def admin(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    return log_in(make_user("boss", roles=["admin"], first_name="Bo", timezone="Europe/Paris"))


@pytest.fixture
def schemas(client: JsonClient) -> dict[str, Any]:
    schemas: dict[str, Any] = client.get("/openapi.json").get_json()["components"]["schemas"]
    return schemas


def assert_fits(value: Any, schema: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Compare a value with its schema: the same members and types."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rsplit("/", 1)[1]]
    if value is None:
        assert schema.get("nullable"), schema
        return
    kinds = {
        "string": str,
        "integer": int,
        "boolean": bool,
        "array": list,
        "object": dict,
        "number": float,
    }
    if "type" in schema:
        assert isinstance(value, kinds[schema["type"]]), (value, schema)
    if schema.get("format") == "date-time":
        assert value.endswith("Z"), value
    for item in value if isinstance(value, list) else ():
        assert_fits(item, schema.get("items", {}), schemas)
    if isinstance(value, dict) and "properties" in schema:
        assert value.keys() == schema["properties"].keys()
        for name, member in schema["properties"].items():
            assert_fits(value[name], member, schemas)


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("/api/v1/auth/me", "Myself"),
        ("/api/v1/auth/verify", "Verified"),
        ("/api/v1/users/", "UserPage"),
        ("/api/v1/users/me", "User"),
        ("/api/v1/audit-logs/", "AuditPage"),
        ("/api/v1/auth/sessions", "SessionList"),
        ("/api/v1/roles/", "RoleList"),
    ],
)
def test_an_answer_fits_its_schema(
    admin: SignedInClient, schemas: dict[str, Any], path: str, schema: str
) -> None:
    answer = admin.get(path)

    assert answer.status_code == 200
    assert_fits(answer.get_json(), schemas[schema], schemas)
