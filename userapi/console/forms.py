"""What a form sends, read by the same schemas as the bodies of the API."""

from collections.abc import Mapping
from typing import Any

from flask import request
from marshmallow import Schema, ValidationError, fields

from userapi.api.problems import invalid_from_messages


def read_form(schema: type[Schema], **given: Any) -> dict[str, Any]:
    """Return the fields of the form as the schema has them; `given` are fields beside the form.

    Raises Invalid with every broken rule.
    """
    reader = schema()
    typed = {name: _typed(name, field) for name, field in reader.fields.items()}
    values = {name: value for name, value in typed.items() if value is not None}
    try:
        loaded: dict[str, Any] = reader.load({**_unknown(reader.fields), **values, **given})
    except ValidationError as exc:
        raise invalid_from_messages(exc.messages) from exc
    return loaded


def _typed(name: str, field: fields.Field[Any]) -> Any:
    """Return what was typed; None for nothing at all."""
    if isinstance(field, fields.Boolean):
        return name in request.form
    if isinstance(field, fields.List):
        return [value for value in request.form.getlist(name) if value]
    value = request.form.get(name)
    return value.replace("\r\n", "\n") if value else None


def _unknown(known: Mapping[str, Any]) -> dict[str, str]:
    return {n: v for n, v in request.form.items() if n not in known and n != "csrf_token"}


def cleared(*names: str) -> dict[str, None]:
    """Return the fields that were sent empty, as ones that are to be emptied."""
    return {name: None for name in names if request.form.get(name) == ""}
