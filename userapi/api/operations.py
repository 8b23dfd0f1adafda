"""What operations of the OpenAPI document say beyond schemas: access, problems and headers."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from apispec import APISpec

from userapi.actor import InsufficientUserAuthentication
from userapi.errors import Invalid, Members, OutcomeUnknown, Unavailable
from userapi.machines.errors import InvalidClient, NetworkNotAllowed

from .credentials import Credentials, InteractiveSessionRequired, UserRequired
from .problems import CONTENT_TYPE

# Title by code, by status.
Problems = dict[int, dict[str, str]]

PROBLEM_REFERENCE = {"$ref": "#/components/schemas/Problem"}
ALWAYS_POSSIBLE: Problems = {
    429: {"rate_limited": "Too many requests."},
    500: {"internal_error": "An internal error occurred."},
    503: {Unavailable.code: Unavailable.title},
}
WITH_A_CHANGE: Problems = {503: {OutcomeUnknown.code: OutcomeUnknown.title}}
WITH_A_BODY: Problems = {
    400: {
        "malformed_json": "The body is not valid JSON.",
        "malformed_request": "The body is incomplete or not well-formed HTTP.",
    },
    408: {"request_timeout": "The body took too long to arrive."},
    413: {"body_too_large": "The body is too large."},
    415: {"unsupported_media_type": "The body is not application/json."},
    422: {"validation_failed": "Some fields are invalid."},
}
WITH_A_TOKEN: Problems = {
    401: {
        "authentication_required": "No token was sent.",
        "token_invalid": "The token is invalid.",
        "token_expired": "The token has expired.",
        "token_revoked": "The token or key was revoked, or its session has ended.",
    },
    403: {NetworkNotAllowed.code: NetworkNotAllowed.title},
}
INSUFFICIENT: Problems = {
    401: {InsufficientUserAuthentication.code: InsufficientUserAuthentication.title}
}
_NO_KEY = {InteractiveSessionRequired.code: InteractiveSessionRequired.title}
_NO_SERVICE = {UserRequired.code: UserRequired.title}
# How keys and client tokens are refused by kinds of credential.
REFUSED_KEYS: dict[Credentials, Problems] = {
    Credentials.ANY: {},
    Credentials.INTERACTIVE: {403: _NO_KEY | _NO_SERVICE},
    Credentials.NAMED: {403: _NO_KEY},
    Credentials.PEOPLE: {403: _NO_SERVICE},
}
# Request headers that an operation accepts if it can return the problem.
HEADERS_BY_PROBLEM = {
    "idempotency_key_reused": (
        "Idempotency-Key",
        "1 to 128 visible ASCII characters. A repeated request with the same body gets the first "
        "response for 24 hours, with `Idempotent-Replay: true`.",
    ),
    "stale_resource": (
        "If-Match",
        "The `ETag` of the state to change. If the state has changed, the response is 412.",
    ),
}
MEMBERS_BY_PROBLEM: dict[str, Members] = {
    "mfa_required": {
        "mfa_token": "Zm9yIHRoZSBzZWNvbmQgc3RlcA",
        "methods": ["totp", "recovery_code"],
        "expires_in": 300,
    },
    "insufficient_user_authentication": {"max_age": 900, "acr_values": "aal2"},
    "permission_denied": {"permission": "users:read"},
    "permission_escalation": {"missing_permissions": ["users:delete"]},
    "role_in_use": {"role": "media-editor"},
}
RESPONSE_HEADERS = {
    401: {"WWW-Authenticate": "How to authenticate (RFC 6750, RFC 9470)."},
    429: {"Retry-After": "Seconds to wait."},
    503: {"Retry-After": "Seconds to wait."},
}


def merge_problems(into: Problems, more: Mapping[int, Mapping[str, str]]) -> None:
    """Add problems to others, in place."""
    for status, codes in more.items():
        into[status] = {**into.get(status, {}), **codes}


def complete_operation(
    doc: dict[str, Any], doc_info: dict[str, Any], *, spec: APISpec, method: str, **_kwargs: Any
) -> dict[str, Any]:
    """Add security, headers and every problem to an operation, each problem with an example."""
    problems: Problems = {}
    merge_problems(problems, doc_info.get("problems", {}))
    merge_problems(problems, ALWAYS_POSSIBLE)
    if method != "get":
        merge_problems(problems, WITH_A_CHANGE)
    access = doc_info.get("access", "public")
    # Lists of operations show the summary. The rest of the docstring is the description.
    summary, _, more = doc_info["docstring"].get("summary", "").partition(". ")
    about = [more, doc_info["docstring"].get("description")]
    if access == "public":
        doc["security"] = []
    else:
        doc["security"] = [{"bearer": []}]
        merge_problems(problems, WITH_A_TOKEN)
        merge_problems(problems, doc_info.get("restrictions", {}))
        # STEP_UP_PERMISSIONS can name any permission.
        if access != "self" or doc_info.get("needs_freshness"):
            merge_problems(problems, INSUFFICIENT)
        credentials = doc_info.get("credentials", Credentials.ANY)
        merge_problems(problems, REFUSED_KEYS[credentials])
        if credentials in (Credentials.ANY, Credentials.NAMED):
            doc["security"].append({"client_credentials": []})
        if doc_info.get("clients"):
            doc["security"].append({"client": []})
            merge_problems(problems, {401: {InvalidClient.code: InvalidClient.title}})
        if access != "self":
            merge_problems(
                problems, {403: {"permission_denied": f"Needs the permission {access}."}}
            )
            # An API key cannot make a step-up.
            merge_problems(problems, {403: _NO_KEY | _NO_SERVICE})
            about.append(f"Needs `{access}`.")
    doc_info["docstring"] = {
        "summary": summary.removesuffix("."),
        "description": "\n\n".join(text for text in about if text),
    }
    _add_request_headers(doc, problems, doc_info.get("request_headers", {}))
    responses = doc.setdefault("responses", {})
    responses.pop("default", None)  # Every problem is listed, so there is no default response.
    media_type = doc_info.get("problem_type", CONTENT_TYPE)
    for status, codes in sorted(problems.items()):
        responses[str(status)] = _problem_response(spec, status, codes, media_type)
    return doc


def public_operation(spec: APISpec, **operation: Any) -> dict[str, Any]:
    """Return the operation of a public route that is served outside of our blueprints."""
    summary = operation.pop("summary")
    accepts_token = operation.pop("accepts_token", False)
    problems = {401: WITH_A_TOKEN[401]} if accepts_token else {}
    info = {"docstring": {"summary": summary}, "problems": problems}
    return {**complete_operation(operation, info, spec=spec, method="get"), "summary": summary}


def _problem_response(
    spec: APISpec, status: int, codes: Mapping[str, str], media_type: str
) -> dict[str, Any]:
    listed = "; ".join(f"`{code}` – {title.rstrip('.')}" for code, title in codes.items())
    examples = {code: _example_of(spec, status, code, title) for code, title in codes.items()}
    return {
        "description": f"{HTTPStatus(status).phrase}: {listed}",
        "content": {media_type: {"schema": PROBLEM_REFERENCE, "examples": examples}},
        **_response_headers(status),
    }


def _example_of(spec: APISpec, status: int, code: str, title: str) -> dict[str, str]:
    """Return a reference to the example of a problem; the document contains each example once.

    A code that occurs with a second status has an example for each.
    """
    examples, name = spec.components.examples, code
    if code in examples and examples[code]["value"]["status"] != status:
        name = f"{code}_{status}"
    if name not in examples:
        value: dict[str, Any] = {
            "type": f"urn:aima:problem:{code}",
            "title": title,
            "status": status,
            "detail": title,
            "instance": "/api/v1/…",
            "code": code,
            "correlation_id": "3f9c2b7a51e84d06",
        }
        value |= MEMBERS_BY_PROBLEM.get(code, {})
        if code == Invalid.code:
            value["errors"] = [
                {"field": "email", "message": "Must be an e-mail address.", "code": "invalid_email"}
            ]
        spec.components.example(name, {"summary": title, "value": value})
    return {"$ref": f"#/components/examples/{name}"}


def _add_request_headers(doc: dict[str, Any], problems: Problems, more: dict[str, str]) -> None:
    """Add the request headers that an operation accepts: by its problems, and `more`."""
    codes = {code for of_status in problems.values() for code in of_status}
    headers = dict(more)
    headers |= {name: about for code, (name, about) in HEADERS_BY_PROBLEM.items() if code in codes}
    for name, about in headers.items():
        doc.setdefault("parameters", []).append(
            {"in": "header", "name": name, "description": about, "schema": {"type": "string"}}
        )


def _response_headers(status: int) -> dict[str, Any]:
    headers = RESPONSE_HEADERS.get(status)
    if headers is None:
        return {}
    return {
        "headers": {
            name: {"description": about, "schema": {"type": "string"}}
            for name, about in headers.items()
        }
    }
