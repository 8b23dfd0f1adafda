"""Our blueprint: flask-smorest with strict parsing, and every error in the OpenAPI document."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

import flask_smorest
from apispec import APISpec
from marshmallow import Schema

from userapi.errors import Invalid, Members, ServiceError

from .bodies import StrictParser
from .problems import CONTENT_TYPE, status_of

View = TypeVar("View", bound=Callable[..., Any])

PROBLEM_REFERENCE = {"$ref": "#/components/schemas/Problem"}
ALWAYS_POSSIBLE = {
    429: {"rate_limited": "Too many requests."},
    500: {"internal_error": "An internal error occurred."},
    503: {"service_unavailable": "The service is temporarily unavailable. Try again."},
}
WITH_A_BODY = {
    400: {
        "malformed_json": "The body is not valid JSON.",
        "malformed_request": "The body is not well-formed HTTP, or breaks off.",
    },
    408: {"request_timeout": "The body took too long to arrive."},
    413: {"body_too_large": "The body is too large."},
    415: {"unsupported_media_type": "The body is not application/json."},
    422: {"validation_failed": "Some fields are invalid."},
}
WITH_A_TOKEN = {
    401: {
        "authentication_required": "No token was sent.",
        "token_invalid": "The token is invalid.",
        "token_expired": "The token has expired.",
        "token_revoked": "The session of this token has ended.",
    },
    403: {"password_change_required": "Change your password first."},
}
HEADERS_BEHIND_REFUSALS = {
    "idempotency_key_reused": (
        "Idempotency-Key",
        "1 to 128 visible ASCII characters. Sent again with the same body, the request gets the "
        "first answer for 24 hours, with `Idempotent-Replay: true`.",
    ),
    "stale_resource": (
        "If-Match",
        "The `ETag` of the state that is to be changed; a newer state is a 412.",
    ),
}
MEMBERS_OF_REFUSALS: dict[str, Members] = {
    "permission_denied": {"permission": "users:read"},
    "permission_escalation": {"missing_permissions": ["users:delete"]},
    "role_in_use": {"role": "media-editor"},
}
HEADERS_OF_REFUSALS = {
    401: {"WWW-Authenticate": "How to authenticate (RFC 6750)."},
    429: {"Retry-After": "Seconds to wait."},
    503: {"Retry-After": "Seconds to wait."},
}


class Blueprint(flask_smorest.Blueprint):
    """A blueprint whose views say which domain errors they may raise."""

    ARGUMENTS_PARSER = StrictParser()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prepare_doc_cbks.append(_document_access_and_problems)

    def arguments(
        self, schema: type[Schema], *, location: str = "json", **kwargs: Any
    ) -> Callable[[View], View]:
        """Parse the body or the query by a schema, and say so in the document."""
        # One for all requests: to make a schema copies every field, deeply.
        parse = super().arguments(schema(), location=location, **kwargs)

        def decorate(view: View) -> View:
            wrapped: View = parse(view)
            wrapped.takes_query = (  # type: ignore[attr-defined]
                location == "query" or getattr(view, "takes_query", False)
            )
            documented = wrapped._apidoc  # type: ignore[attr-defined]
            documented.setdefault("problems", {})
            if location == "json":
                _merge(documented["problems"], WITH_A_BODY)
            else:
                _merge(documented["problems"], {422: WITH_A_BODY[422]})
            return wrapped

        return decorate

    def raises(self, *errors: type[ServiceError]) -> Callable[[View], View]:
        """Say in the document which refusals of the domain a view passes on."""

        def decorate(view: View) -> View:
            documented = dict(getattr(view, "_apidoc", {}))
            problems = {
                status: dict(codes) for status, codes in documented.get("problems", {}).items()
            }
            for error in errors:
                _merge(problems, {status_of(error): {error.code: error.title}})
            documented["problems"] = problems
            view._apidoc = documented  # type: ignore[attr-defined]
            return view

        return decorate


def _merge(into: dict[int, dict[str, str]], more: dict[int, dict[str, str]]) -> None:
    for status, codes in more.items():
        into[status] = {**into.get(status, {}), **codes}


def _document_access_and_problems(
    doc: dict[str, Any], doc_info: dict[str, Any], *, spec: APISpec, **_kwargs: Any
) -> dict[str, Any]:
    """Add security, 401, 403 and every other refusal to an operation, each with an example."""
    problems = {status: dict(codes) for status, codes in doc_info.get("problems", {}).items()}
    _merge(problems, ALWAYS_POSSIBLE)
    access = doc_info.get("access", "public")
    # One line is what the documents list; whatever a docstring says besides stands below it.
    summary, _, more = doc_info["docstring"].get("summary", "").partition(". ")
    about = [more, doc_info["docstring"].get("description")]
    if access == "public":
        doc["security"] = []
    else:
        doc["security"] = [{"bearer": []}]
        _merge(problems, WITH_A_TOKEN)
        if access != "self":
            _merge(problems, {403: {"permission_denied": f"Needs the permission {access}."}})
            about.append(f"Needs `{access}`.")
    doc_info["docstring"] = {
        "summary": summary.removesuffix("."),
        "description": "\n\n".join(text for text in about if text),
    }
    _document_request_headers(doc, problems, doc_info.get("request_headers", {}))
    responses = doc.setdefault("responses", {})
    responses.pop("default", None)  # Each refusal is told; nothing is left to a default.
    for status, codes in sorted(problems.items()):
        responses[str(status)] = {
            "description": f"{HTTPStatus(status).phrase}: "
            + "; ".join(f"`{code}` – {title.rstrip('.')}" for code, title in codes.items()),
            "content": {
                CONTENT_TYPE: {
                    "schema": PROBLEM_REFERENCE,
                    "examples": {
                        code: _example_of(spec, status, code, title)
                        for code, title in codes.items()
                    },
                }
            },
            **_documented_headers(status),
        }
    return doc


def document_plainly(spec: APISpec, **operation: Any) -> dict[str, Any]:
    """Return the operation of a public route that is served outside of our blueprints."""
    summary = operation.pop("summary")
    takes_token = operation.pop("takes_token", False)
    refusals = {401: WITH_A_TOKEN[401]} if takes_token else {}
    info = {"docstring": {"summary": summary}, "problems": refusals}
    return {**_document_access_and_problems(operation, info, spec=spec), "summary": summary}


def _example_of(spec: APISpec, status: int, code: str, title: str) -> dict[str, str]:
    """Return the reference of a refusal's example; the document holds each one once."""
    if code not in spec.components.examples:
        value: dict[str, Any] = {
            "type": f"urn:aima:problem:{code}",
            "title": title,
            "status": status,
            "detail": title,
            "instance": "/api/v1/…",
            "code": code,
            "correlation_id": "3f9c2b7a51e84d06",
        }
        value |= MEMBERS_OF_REFUSALS.get(code, {})
        if code == Invalid.code:
            value["errors"] = [
                {"field": "email", "message": "Must be an e-mail address.", "code": "invalid_email"}
            ]
        spec.components.example(code, {"summary": title, "value": value})
    return {"$ref": f"#/components/examples/{code}"}


def _document_request_headers(
    doc: dict[str, Any], problems: dict[int, dict[str, str]], more: dict[str, str]
) -> None:
    """Add the headers that an operation understands: those it has refusals about, and `more`."""
    codes = {code for of_status in problems.values() for code in of_status}
    headers = dict(more)
    headers |= {
        name: about for code, (name, about) in HEADERS_BEHIND_REFUSALS.items() if code in codes
    }
    for name, about in headers.items():
        doc.setdefault("parameters", []).append(
            {"in": "header", "name": name, "description": about, "schema": {"type": "string"}}
        )


def _documented_headers(status: int) -> dict[str, Any]:
    headers = HEADERS_OF_REFUSALS.get(status)
    if headers is None:
        return {}
    return {
        "headers": {
            name: {"description": about, "schema": {"type": "string"}}
            for name, about in headers.items()
        }
    }
