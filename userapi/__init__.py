"""The User Management Service: accounts, sign-in, roles, sessions, audit and events."""

from flask import Flask

from userapi import cli, database, observability
from userapi.clock import Clock
from userapi.private_files import tighten_instance
from userapi.settings import Settings
from userapi.wiring import Services, build_services


def create_app(
    settings: Settings | None = None, *, clock: Clock | None = None, web: bool = True
) -> Flask:
    """Return the application, with `web=False` for commands alone. Connects to nothing.

    Raises SettingsError, with every fault, where the environment does not make a service.
    """
    settings = settings or Settings.load()
    tighten_instance(settings.instance_dir)
    observability.configure_logging(settings)
    application = _class_for_web() if web else Flask
    app = application("userapi", instance_path=str(settings.instance_dir), static_folder=None)
    app.config.update(SECRET_KEY=settings.secret_key, DEBUG=settings.debug, TESTING=False)
    cli.init_app(app)
    database.init_app(app, settings)
    services = build_services(settings, clock)
    services.access_tokens.configure(app)
    app.extensions["userapi"] = services
    with app.app_context():
        services.metrics.watch_pool(database.db.engine)
    if web:
        _add_web(app, services)
    return app


# Imported when they are needed: a command needs no endpoints, nor the libraries that they need.
def _class_for_web() -> type[Flask]:
    from userapi.api.application import Application

    return Application


def _add_web(app: Flask, services: Services) -> None:
    from userapi import api, console

    # Before the API, which limits the requests of every endpoint that there is.
    console.init_app(app, services)
    api.init_app(app, services)
