"""Answers that are too long to be made at once, sent as they are read."""

from collections.abc import Iterator
from datetime import datetime

from flask import Response, stream_with_context

from userapi.infrastructure.export import MEDIA_TYPES, ExportFormat, with_byte_order_mark


def export_response(
    pieces: Iterator[bytes], *, form: ExportFormat, name: str, now: datetime, bom: bool = False
) -> Response:
    """Return a download of everything in `pieces`; with `bom` after a mark, where it is CSV.

    An error on the way is raised to the server, which then breaks the connection off: a client
    never takes a part for the whole.
    """
    if bom:
        pieces = with_byte_order_mark(pieces, form)
    response = Response(stream_with_context(pieces), content_type=MEDIA_TYPES[form])
    filename = f"{name}-{now:%Y%m%dT%H%M%SZ}.{form}"
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    return response


def document_response(pieces: Iterator[bytes], *, filename: str) -> Response:
    """Return a download of one JSON document; an error on the way breaks the connection off."""
    response = Response(stream_with_context(pieces), mimetype="application/json")
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    return response
