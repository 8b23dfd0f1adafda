"""Downloads that are streamed while they are read."""

from collections.abc import Iterator
from datetime import datetime

from flask import Response, stream_with_context

from userapi.infrastructure.export import MEDIA_TYPES, ExportFormat, with_byte_order_mark


def export_response(
    pieces: Iterator[bytes], *, form: ExportFormat, name: str, now: datetime, bom: bool = False
) -> Response:
    """Return a download of `pieces`. With `bom`, CSV starts with a byte order mark.

    An error during the download reaches the server, which closes the connection, so that a client
    notices that the file is incomplete.
    """
    if bom:
        pieces = with_byte_order_mark(pieces, form)
    response = Response(stream_with_context(pieces), content_type=MEDIA_TYPES[form])
    filename = f"{name}-{now:%Y%m%dT%H%M%SZ}.{form}"
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    return response


def document_response(pieces: Iterator[bytes], *, filename: str) -> Response:
    """Return a download of one JSON document. An error during it closes the connection."""
    response = Response(stream_with_context(pieces), mimetype="application/json")
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    return response
