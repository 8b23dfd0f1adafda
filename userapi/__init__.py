"""The User Management Service of AIMA: accounts, sign-in, roles, sessions, audit and events."""

from collections.abc import Callable
from typing import Any

from flask import Flask, Response

from userapi import api, cli, console, database, observability
from userapi.api import problems
from userapi.clock import Clock
from userapi.private_files import tighten_instance
from userapi.settings import Settings
from userapi.wiring import build_services


class _Application(Flask):
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


def create_app(settings: Settings | None = None, *, clock: Clock | None = None) -> Flask:
    """Return the application. Connects to nothing.

    Raises SettingsError, with every fault, where the environment does not make a service.
    """
    settings = settings or Settings.load()
    tighten_instance(settings.instance_dir)
    observability.configure_logging(settings)
    app = _Application("userapi", instance_path=str(settings.instance_dir), static_folder=None)
    app.config.update(SECRET_KEY=settings.secret_key, DEBUG=settings.debug, TESTING=False)
    cli.init_app(app)
    database.init_app(app, settings)
    services = build_services(settings, clock)
    services.access_tokens.configure(app)
    app.extensions["userapi"] = services
    with app.app_context():
        services.metrics.watch_pool(database.db.engine)
    # Before the API, which limits the requests of every endpoint that there is.
    console.init_app(app, services)
    api.init_app(app, services)
    return app
