"""The User Management Service: accounts, sign-in, roles, sessions, audit and events."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

import structlog
from flask import Flask

from userapi import cli
from userapi.clock import Clock
from userapi.infrastructure.logging import configure_logging
from userapi.private_files import tighten_instance
from userapi.settings import Settings, faults_end_the_process

if TYPE_CHECKING:
    from userapi.wiring import Services

log = structlog.get_logger(__name__)

LOADED_BEFORE_REQUESTS = (
    "email_validator",
    "ua_parser",
    "userapi.passwords.estimation",
)


def create_app(
    settings: Settings | None = None, *, clock: Clock | None = None, web: bool = True
) -> Flask:
    """Return the application, with `web=False` for commands alone. Connects to nothing.

    Without the web, the services are built when the first command is loaded: `flask --help`
    needs none. Raises SettingsError, with every fault, where the environment does not make a
    service.
    """
    settings = settings or Settings.load()
    tighten_instance(settings.instance_dir)
    configure_logging(settings)
    if web and settings.is_production:
        for variable in settings.unverified_connections:
            log.warning("settings.connection_not_verified", variable=variable)
    application = _class_for_web() if web else Flask
    app = application("userapi", instance_path=str(settings.instance_dir), static_folder=None)
    app.config.update(SECRET_KEY=settings.secret_key, DEBUG=settings.debug, TESTING=False)

    @cache
    def add_services() -> Services:
        return _add_services(app, settings, clock)

    @faults_end_the_process()
    def prepare_command() -> None:
        add_services()

    cli.init_app(app, prepare_command)
    if web:
        _add_web(app, add_services())
    return app


# Imported when they are needed: a list of commands needs no services, a command needs no
# endpoints, and neither needs the libraries of the other.
def _add_services(app: Flask, settings: Settings, clock: Clock | None) -> Services:
    from userapi.infrastructure import database
    from userapi.wiring import build_services

    database.init_app(
        app,
        database_url=settings.database_url,
        direct_url=settings.database_direct_url,
        pool_size=settings.database_pool_size,
        tolerated_skew_seconds=settings.clock_skew_seconds,
    )
    services = build_services(settings, clock)
    services.access_tokens.configure(app)
    app.extensions["userapi"] = services
    with app.app_context():
        services.metrics.watch_pool(database.db.engine)
    return services


def _class_for_web() -> type[Flask]:
    from userapi.api.application import Application

    return Application


def _add_web(app: Flask, services: Services) -> None:
    from userapi import api, console
    from userapi.infrastructure import database

    # These would otherwise be loaded by the first request that needs them.
    for name in LOADED_BEFORE_REQUESTS:
        import_module(name)
    database.init_migrations(app)
    # Before the API, which limits the requests of every endpoint that there is.
    console.init_app(app, services)
    api.init_app(app, services)
