"""The Flask application that serves requests."""

from flask import Flask, Response

from . import problems


class Application(Flask):
    """Flask whose answer to OPTIONS also covers the path of a collection without its slash."""

    def make_default_options_response(self) -> Response:
        """Return what can be done here, also for the path of a collection without its slash."""
        response = super().make_default_options_response()
        if not response.allow:
            response.allow.update(problems.methods_with_slash())
        return response
