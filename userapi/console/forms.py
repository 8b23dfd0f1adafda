"""Reads forms and filters with the schemas of the API."""

import re
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote

from flask import request
from marshmallow import Schema, ValidationError, fields
from werkzeug.datastructures import MultiDict

from userapi.api.field_errors import all_errors
from userapi.clock import rfc3339

from .languages import viewer

_TOKEN_IN_LINK = re.compile(r"#token=([A-Za-z0-9_-]+)", re.ASCII)


def read_form(schema: type[Schema], **given: Any) -> dict[str, Any]:
    """Return the fields of the form as the schema loads them. `given` replaces fields of the form.

    An empty field is null if the schema allows null, otherwise it is omitted. Raises Invalid with
    every broken rule.
    """
    reader = schema()
    typed = {name: _typed(request.form, name, field) for name, field in reader.fields.items()}
    emptied = {n for n, field in reader.fields.items() if field.allow_none and n in request.form}
    return _loaded(reader, typed | given, nulls=emptied)


def read_query(
    schema: type[Schema], *, source: Mapping[str, str] | None = None, **given: Any
) -> dict[str, Any]:
    """Return the filters of the URL, or of `source`, as the schema loads them.

    Empty filters are omitted. Raises Invalid with every broken rule.
    """
    reader = schema()
    filters = request.args if source is None else source
    typed = {name: filters.get(name) or None for name in reader.fields}
    return _loaded(reader, typed | given)


def pasted_token(name: str = "token") -> str | None:
    """Return the one-time token in a field of the form, which can contain the whole link.

    Some mail programs wrap links in their own, with a percent-encoded fragment.
    """
    text = request.form.get(name) or None
    found = text and _TOKEN_IN_LINK.search(unquote(text))
    return found[1] if found else text


def typed_filters(schema: type[Schema], *, exclude: Collection[str] = ()) -> dict[str, str]:
    """Return the filters of the URL as they were typed, for links that keep them.

    Returns only fields of the schema: `url_for` would interpret `_scheme` or `_external` itself.
    """
    known = {field.data_key or name for name, field in schema().fields.items()} - set(exclude)
    return {name: value for name, value in request.args.items() if value and name in known}


def day(name: str, *, after: int = 0, source: Mapping[str, str] | None = None) -> str | None:
    """Return the start of a day in a date field of the URL, `after` days later.

    The day is one in the viewer's time zone. `source` replaces the URL. Returns None for an empty
    field, and any other text unchanged: the schema rejects it.
    """
    value = (request.args if source is None else source).get(name)
    if not value:
        return None
    try:
        midnight = datetime.fromisoformat(f"{value}T00:00:00") + timedelta(after)
        return rfc3339(midnight.replace(tzinfo=viewer().zone))
    except (ValueError, OverflowError):
        return value


def local_time(name: str, *, time_of_day: str = "") -> str | None:
    """Return the time in a field of the form, which is one in the viewer's time zone.

    A field with a day gets the time of day, such as T23:59:59. Returns None for an empty field, and
    any other text unchanged: the schema rejects it.
    """
    value = request.form.get(name)
    if not value:
        return None
    try:
        return rfc3339(datetime.fromisoformat(value + time_of_day).replace(tzinfo=viewer().zone))
    except (ValueError, OverflowError):
        return value


def _loaded(
    reader: Schema, typed: Mapping[str, Any], nulls: Collection[str] = ()
) -> dict[str, Any]:
    values = {n: value for n, value in typed.items() if value is not None or n in nulls}
    try:
        loaded: dict[str, Any] = reader.load(values)
    except ValidationError as exc:
        raise all_errors(reader, exc.messages, exc.valid_data) from exc
    return loaded


def _typed(form: MultiDict[str, str], name: str, field: fields.Field[Any]) -> Any:
    """Return the value of a field; None if it is empty."""
    if isinstance(field, fields.Boolean):
        return name in form
    if isinstance(field, fields.List):
        return [value for value in form.getlist(name) if value]
    value = form.get(name)
    return value.replace("\r\n", "\n") if value else None
