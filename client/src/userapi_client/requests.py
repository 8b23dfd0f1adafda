"""What the client sends."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import quote

REPEATABLE_METHODS = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
API = "/api/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, without the credentials."""

    method: str
    path: str
    params: Mapping[str, str | list[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    data: Mapping[str, str] | None = None
    timeout: float | None = None
    is_repeatable: bool = False


def call(
    method: str,
    path: str,
    *,
    params: Mapping[str, Any] | None = None,
    json: Any = None,
    data: Mapping[str, str] | None = None,
    content: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    if_match: str | None = None,
    timeout: float | None = None,
) -> Call:
    """Return a request to a path of the service. `/users/` is short for `/api/v1/users/`.

    Raises ValueError for a path that would lead to another host.
    """
    if not path.startswith("/") or path.startswith("//") or "\\" in path or ".." in path:
        raise ValueError("The path must begin with one slash and must not contain dots.")
    if not path.startswith((f"{API}/", "/.well-known/", "/openapi.json", "/metrics")):
        path = API + path
    sent = dict(headers or {})
    if json is not None:
        content = encoded(json)
        sent["Content-Type"] = "application/json"
    if idempotency_key is not None:
        sent["Idempotency-Key"] = idempotency_key
    if if_match is not None:
        sent["If-Match"] = if_match
    names = {name.lower() for name in sent}
    method = method.upper()
    return Call(
        method=method,
        path=path,
        params={name: _query(value) for name, value in (params or {}).items() if value is not None},
        headers=sent,
        content=content,
        data=data,
        timeout=timeout,
        is_repeatable=method in REPEATABLE_METHODS
        or (method == "PATCH" and "if-match" in names)
        or (method == "POST" and "idempotency-key" in names),
    )


def repeatable(one: Call) -> Call:
    """Return the same request, marked as safe to repeat."""
    return replace(one, is_repeatable=True)


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def new_idempotency_key() -> str:
    """Return a unique key."""
    return str(uuid.uuid4())


def segment(value: object) -> str:
    """Return an id or a name as one segment of a path. Raises ValueError for one without text."""
    text = quote(str(value), safe="")
    if text in ("", ".", ".."):
        raise ValueError("An id or a name is missing.")
    return text


def encoded(value: Any) -> bytes:
    """Return JSON; times in UTC, sets and tuples as lists."""
    return json.dumps(value, default=_plain, allow_nan=False).encode()


def holds(raw: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    """Return whether an object already has all these values."""
    wanted = json.loads(encoded(fields))
    return all(name in raw and raw[name] == value for name, value in wanted.items())


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return _time(value)
    if isinstance(value, date | uuid.UUID):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON.")


def _query(value: Any) -> str | list[str]:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return _time(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [str(item) for item in value]
    return str(value)


def _time(value: datetime) -> str:
    if value.tzinfo is None:
        raise ValueError("A time must have a time zone.")
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
