"""The Flask application that serves requests."""

from collections.abc import Callable
from typing import Any

from flask import Flask, Response

from .slashes import methods_with_slash


class Application(Flask):
    """Flask that also answers OPTIONS for the path of a collection without its slash."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._synchronous: dict[Callable[..., Any], Callable[..., Any]] = {}

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function itself, or a synchronous one that calls an asynchronous one.

        Flask checks this ten times per request, and inspecting the function takes a microsecond.
        """
        known = self._synchronous.get(func)
        if known is None:
            known = self._synchronous[func] = super().ensure_sync(func)
        return known

    def make_default_options_response(self) -> Response:
        """Return the allowed methods, also for the path of a collection without its slash."""
        response = super().make_default_options_response()
        if not response.allow:
            response.allow.update(methods_with_slash())
        return response
