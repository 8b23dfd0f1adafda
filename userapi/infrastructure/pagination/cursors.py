"""Cursors: opaque texts that name the last row of a page.

A cursor contains the sort values of this row, and a MAC over them, the sort and the filters. A
cursor that was changed, or is used with another sort or filter, is rejected.
"""

import base64
import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from userapi.clock import rfc3339
from userapi.errors import Malformed

MAX_CURSOR_LENGTH = 2048


class InvalidCursor(Malformed):
    """The cursor was changed, or belongs to another sort or filter."""

    code = "invalid_cursor"
    title = "This cursor does not belong to this list."


class Cursors:
    """Writes and reads the cursors of one kind of list."""

    def __init__(self, secret: str, name: str) -> None:
        self._key = hmac.digest(secret.encode(), f"cursor:{name}".encode(), "sha256")

    def write(self, values: Sequence[Any], context: bytes) -> str:
        """Return the cursor for the sort values of a row. `context` is the sort and the filters."""
        body = orjson.dumps([_portable(value) for value in values])
        return base64.urlsafe_b64encode(self._mac(context, body) + body).rstrip(b"=").decode()

    def read(self, cursor: str, context: bytes, length: int) -> list[Any]:
        """Return the `length` sort values in a cursor. Raises InvalidCursor."""
        if len(cursor) > MAX_CURSOR_LENGTH or not cursor.isascii():
            raise InvalidCursor()
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except ValueError as exc:
            raise InvalidCursor() from exc
        mac, body = raw[:16], raw[16:]
        # Another text that decodes to the same bytes is a changed cursor, too.
        again = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        if not hmac.compare_digest(mac, self._mac(context, body)) or again != cursor:
            raise InvalidCursor()
        values = orjson.loads(body)
        if len(values) != length:
            raise InvalidCursor()
        return [_native(value) for value in values]

    def _mac(self, context: bytes, body: bytes) -> bytes:
        return hmac.digest(self._key, context + b"\0" + body, "sha256")[:16]


def _portable(value: Any) -> Any:
    if isinstance(value, datetime):
        return {"t": rfc3339(value)}
    if isinstance(value, UUID):
        return {"u": str(value)}
    return value


def _native(value: Any) -> Any:
    if isinstance(value, dict):
        if "t" in value:
            return datetime.fromisoformat(value["t"])
        return UUID(value["u"])
    return value
