"""Paths that differ from an existing one by the slash at their end."""

from collections.abc import Collection

from flask import current_app, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import MapAdapter


class UnexpectedSlash(NotFound):
    """The path does not exist, but the same path without the trailing slash does."""

    description = "The path does not exist. The same path without the trailing slash exists."


def methods_with_slash() -> Collection[str]:
    """Return the methods of the request's path with a slash appended.

    Werkzeug accepts the path without the slash for these methods and returns 404 for others.
    """
    if request.path.endswith("/"):
        return ()
    return list(_adapter().allowed_methods(f"{request.path}/"))


def explain_not_found(error: NotFound) -> HTTPException:
    """Return a more precise error if a similar path exists, otherwise `error`."""
    methods = methods_with_slash()
    if methods:
        return MethodNotAllowed(valid_methods=methods)
    shorter = request.path.rstrip("/")
    if shorter != request.path and shorter and _adapter().allowed_methods(shorter):
        return UnexpectedSlash()
    return error


def _adapter() -> MapAdapter:
    adapter: MapAdapter = current_app.create_url_adapter(request)  # type: ignore[assignment]
    return adapter
