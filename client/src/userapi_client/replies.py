"""Reads responses of the REST API: which error they report, and when to try again."""

import json
from collections.abc import Mapping
from typing import Any

import httpx2

from userapi_client.errors import Problem, ProblemUnavailable, SessionEnded, Stale, Unavailable

CORRELATION_ID = "X-Correlation-ID"
# In the extensions of a response: an earlier attempt of its request may have taken effect.
OUTCOME_WAS_OPEN = "userapi_client.outcome_was_open"
OUTAGES = (502, 503, 504)
# The session has ended: none of its tokens will be accepted again.
ENDED = ("token_revoked", "refresh_token_reused")


def retry_after_of(response: httpx2.Response) -> float | None:
    """Return the seconds of Retry-After, or None. A date is ignored."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else None


def body_of(response: httpx2.Response) -> Mapping[str, Any]:
    """Return the JSON object of a response, or an empty one."""
    try:
        found = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def problem_of(response: httpx2.Response) -> Problem:
    """Return the error that a response reports."""
    body = body_of(response)
    status = response.status_code
    code = body.get("code")
    kind: type[Problem] = Problem
    if status in OUTAGES:
        kind = ProblemUnavailable
    elif status == 412:
        kind = Stale
    errors = body.get("errors")
    problem = kind(
        status=status,
        code=code if isinstance(code, str) else "unexpected_response",
        title=_text(body, "title") or response.reason_phrase,
        detail=_text(body, "detail"),
        errors=[item for item in errors if isinstance(item, dict)]
        if isinstance(errors, list)
        else [],
        correlation_id=response.headers.get(CORRELATION_ID),
        retry_after=retry_after_of(response),
        body=body,
    )
    if isinstance(problem, Stale):
        problem.may_be_own = response.extensions.get(OUTCOME_WAS_OPEN, False) is True
    return problem


def session_ended(problem: Problem) -> SessionEnded:
    """Return the same problem as the end of the session."""
    return SessionEnded(*problem.args)


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    return value if isinstance(value, str) else ""


def json_of(response: httpx2.Response) -> Any:
    """Return the JSON value of a response. Raises Unavailable if it is not JSON."""
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError) as exc:
        raise Unavailable(detail="The response is not JSON.") from exc
