"""The Flask application that serves requests."""

from flask import Flask, Response

from .slashes import methods_with_slash


class Application(Flask):
    """Flask that also answers OPTIONS for the path of a collection without its slash."""

    def make_default_options_response(self) -> Response:
        """Return the allowed methods, also for the path of a collection without its slash."""
        response = super().make_default_options_response()
        if not response.allow:
            response.allow.update(methods_with_slash())
        return response
