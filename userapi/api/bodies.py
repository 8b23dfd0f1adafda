"""Strict reading of request bodies and query strings."""

import codecs
from collections.abc import Collection, Mapping
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from flask import Flask, Request, current_app, request
from marshmallow import Schema, ValidationError
from webargs.flaskparser import FlaskParser
from webargs.multidictproxy import MultiDictProxy

from userapi.errors import FieldError, Invalid, Malformed, invalid_field
from userapi.infrastructure import strict_json
from userapi.serving.body_limits import BODY_LIMIT_BYTES, BodyLimits, allow_body, has_body

from .context import unproxied
from .field_errors import all_errors
from .problems import UnsupportedCoding, UnsupportedMediaType

IMPORT_LIMIT_BYTES = 10 * 1024 * 1024
IMPORT_SECONDS = 120
MAX_LEVELS = 32
MAX_UNKNOWN_REPORTED = 20
FORM = "application/x-www-form-urlencoded"
UTF_8 = frozenset({"utf-8", "utf8"})

TOO_DEEP = f"More than {MAX_LEVELS} levels of nesting."


class MalformedJson(Malformed):
    """The body is not JSON (RFC 8259), or readers can understand it differently."""

    code = "malformed_json"
    title = "The body is not valid JSON."


def read_body(limit: int = BODY_LIMIT_BYTES) -> bytes:
    """Return the whole body.

    Raises 413 above `limit` bytes, 400 if it is incomplete, 408 if it is late, and
    UnsupportedCoding if it is compressed. Only authenticated callers may send more than
    BODY_LIMIT_BYTES; they have more time.
    """
    codings = request.headers.get("Content-Encoding", "")
    if codings.strip().lower() not in ("", "identity"):
        raise UnsupportedCoding()
    if limit > BODY_LIMIT_BYTES:
        allow_body(request.environ, limit=limit, seconds=IMPORT_SECONDS)
    return request.get_data()


def receive_body() -> None:
    """Receive the body before the view runs, so that an incomplete request has no effect.

    Pages and views with a larger limit receive it once they have authenticated the sender.
    """
    if not has_body(unproxied(request).environ):
        return
    view = current_app.view_functions.get(request.endpoint or "")
    if request.blueprint != "console" and not hasattr(view, "body_limit"):
        request.get_data()


def init_app(app: Flask) -> None:
    """Limit the bodies of all requests. Earlier hooks count rate limits."""
    app.wsgi_app = BodyLimits(app.wsgi_app)  # type: ignore[method-assign]
    app.before_request(receive_body)


def parse_json(raw: bytes) -> Any:
    """Return the value of a JSON text. Raises MalformedJson.

    It rejects everything that `strict_json` rejects, more than 32 levels, a byte order mark, and
    encodings other than UTF-8.
    """
    if not raw.strip():
        raise MalformedJson("The body is empty. This endpoint accepts JSON.")
    _require_plain_utf_8(raw)
    try:
        value = strict_json.loads(raw.decode("utf-8"))
    except RecursionError as exc:
        raise MalformedJson(TOO_DEEP) from exc
    except UnicodeDecodeError as exc:
        raise MalformedJson("The body is not UTF-8.") from exc
    except strict_json.NotStrictJson as exc:
        raise MalformedJson(str(exc)) from exc
    _require_shallow(value)
    return value


def readable_members() -> Mapping[str, Any]:
    """Return the members of the JSON object in the body; none if the body is anything else.

    For decisions that precede the validation of the body.
    """
    try:
        value = parse_json(read_body())
    except Malformed:
        return {}
    return value if isinstance(value, dict) else {}


def _require_plain_utf_8(raw: bytes) -> None:
    """Raise MalformedJson for encodings that programs on Windows write, and name them."""
    if raw.startswith(codecs.BOM_UTF8):
        raise MalformedJson(
            "The body begins with a byte order mark. Send JSON as UTF-8 without one (RFC 8259)."
        )
    # JSON starts with an ASCII character, which UTF-16 and UTF-32 encode with a zero byte.
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in raw[:2]:
        raise MalformedJson("The body is UTF-16 or UTF-32. Send JSON as UTF-8 (RFC 8259).")


def _require_shallow(value: Any) -> None:
    """Raise MalformedJson for a value that is nested too deeply.

    Counts the levels of the parsed value. Only the JSON parser, whose time is linear, reads the
    text.
    """
    containers = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_LEVELS):
        if not containers:
            return
        containers = [
            member
            for container in containers
            for member in (container.values() if isinstance(container, dict) else container)
            if isinstance(member, dict | list)
        ]
    if containers:
        raise MalformedJson(TOO_DEEP)


def require_media_type(*accepted: str, charsets: Collection[str] = UTF_8) -> str:
    """Return the media type of the body. Raises UnsupportedMediaType."""
    media_type = request.mimetype
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if media_type not in accepted:
        raise UnsupportedMediaType(f"This endpoint accepts {' or '.join(accepted)}.")
    if charset not in charsets:
        raise UnsupportedMediaType("This charset is not supported. Send UTF-8.")
    return media_type


class StrictParser(FlaskParser):
    """webargs with strict JSON and the errors of this service."""

    DEFAULT_UNKNOWN_BY_LOCATION: dict[str, str | None] = {}

    def load_json(self, req: Request, schema: Schema) -> Any:
        """Return the parsed body; {} for an empty body if the schema allows it."""
        raw = read_body()
        if getattr(schema, "accepts_form", False) and req.mimetype == FORM:
            require_media_type(FORM)
            return {n: v for n, v in _parse_form(raw).items() if n in schema.fields}
        if not raw and getattr(schema, "body_optional", False):
            return {}
        if raw or req.mimetype:
            require_media_type("application/json")
        return _without_surplus(parse_json(raw), schema)

    def load_querystring(self, req: Request, schema: Schema) -> Any:
        """Return the query parameters. Raises Invalid for a repeated one."""
        _require_once(
            schema, [name for name, values in req.args.lists() if len(values) > 1], req.args
        )
        return MultiDictProxy(req.args, schema)

    def handle_error(
        self,
        error: ValidationError,
        req: Request,
        schema: Schema,
        *,
        error_status_code: int | None,
        error_headers: Any,
    ) -> NoReturn:
        """Raise the errors of all fields as one domain error."""
        messages = error.messages
        if isinstance(messages, dict):
            messages = messages.get("json", messages.get("query", messages))
        raise all_errors(schema, messages, error.valid_data) from error


def _without_surplus(value: Any, schema: Schema) -> Any:
    """Return an object without most of its unknown members.

    One unknown member is enough to reject the object, but each is an error to collect and to
    render: 5000 of them cost 40 ms and a response of 340 KB. The first ones are reported.
    """
    if not isinstance(value, dict) or len(value) <= len(schema.load_fields):
        return value
    known = {field.data_key or name for name, field in schema.load_fields.items()}
    unknown = [name for name in value if name not in known]
    surplus = frozenset(unknown[MAX_UNKNOWN_REPORTED:])
    return {name: member for name, member in value.items() if name not in surplus}


def _require_once(schema: Schema, repeated: Collection[str], given: Mapping[str, Any]) -> None:
    """Raise Invalid with every repeated parameter, and every error of the others."""
    if not repeated:
        return
    errors = [FieldError(name, "Must not be repeated.", "repeated") for name in repeated]
    try:
        schema.load({name: value for name, value in given.items() if name not in repeated})
    except ValidationError as exc:
        errors += all_errors(schema, exc.messages, exc.valid_data).errors
    raise Invalid(errors)


def _parse_form(raw: bytes) -> dict[str, str]:
    """Return the fields of a form. Raises Malformed, or Invalid for a repeated field.

    The caller ignores unknown fields (RFC 6749 §3.2), because libraries send `client_id`.
    """
    try:
        pairs = parse_qsl(
            raw.decode("utf-8"),
            keep_blank_values=True,
            strict_parsing=bool(raw),
            errors="strict",
            max_num_fields=20,
        )
    except ValueError as exc:
        raise Malformed("The body is not a well-formed form.") from exc
    fields: dict[str, str] = {}
    for name, value in pairs:
        if name in fields:
            raise invalid_field(name, "Must not be repeated.", "repeated")
        fields[name] = value
    return fields


def refuse_query() -> None:
    """Raise Invalid if the request has query parameters, on an endpoint without any."""
    if request.args:
        raise Invalid(
            [FieldError(name, "Unknown query parameter.", "unknown_field") for name in request.args]
        )
