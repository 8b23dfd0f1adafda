"""The Flask application that serves requests."""

from collections.abc import Callable
from typing import Any

from flask import Flask, Response

from . import problems


class Application(Flask):
    """Flask without its look, ten times a request, whether a function is a coroutine: none is."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function as it is."""
        return func

    def make_default_options_response(self) -> Response:
        """Return what can be done here, also for the path of a collection without its slash."""
        response = super().make_default_options_response()
        if not response.allow:
            response.allow.update(problems.methods_with_slash())
        return response
