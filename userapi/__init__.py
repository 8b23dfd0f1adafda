"""The User Management Service of AIMA: accounts, sign-in, roles, sessions, audit and events."""

from flask import Flask

from userapi import api, cli, console, database, observability
from userapi.clock import Clock
from userapi.settings import Settings
from userapi.wiring import build_services


def create_app(settings: Settings | None = None, *, clock: Clock | None = None) -> Flask:
    """Return the application. Connects to nothing.

    Raises SettingsError, with every fault, where the environment does not make a service.
    """
    settings = settings or Settings.load()
    observability.configure_logging(settings)
    app = Flask("userapi", instance_path=str(settings.instance_dir), static_folder=None)
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
