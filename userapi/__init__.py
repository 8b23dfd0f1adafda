"""The User Management Service: accounts, sign-in, roles, sessions, audit and events."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from flask import Flask

from userapi import cli
from userapi.clock import Clock
from userapi.infrastructure.logging import configure_logging, warn_of_unverified_connections
from userapi.private_files import tighten_instance
from userapi.settings import Settings, faults_end_the_process

if TYPE_CHECKING:
    from userapi.wiring.groups import ServiceGroups

MODULES_OF_WEB = (
    "userapi.api",
    "userapi.console",
    "userapi.wiring.services",
    # These would otherwise be loaded by the first request that needs them.
    "email_validator",
    "ua_parser",
    "userapi.passwords.estimation",
)


def create_app(
    settings: Settings | None = None, *, clock: Clock | None = None, web: bool = True
) -> Flask:
    """Return the application, with `web=False` for commands alone. Connects to nothing.

    Without the web, services are bound when a command is loaded: `flask --help` needs none.
    Raises SettingsError, with every fault, where the environment does not make a service.
    """
    settings = settings or Settings.load()
    tighten_instance(settings.instance_dir)
    configure_logging(settings)
    if web:
        warn_of_unverified_connections(settings)
    application = _class_for_web() if web else Flask
    app = application("userapi", instance_path=str(settings.instance_dir), static_folder=None)
    app.config.update(SECRET_KEY=settings.secret_key, DEBUG=settings.debug, TESTING=False)

    @cache
    def bind() -> None:
        bind_services(app, settings, clock)

    @faults_end_the_process()
    def prepare_command() -> None:
        bind()

    cli.init_app(app, prepare_command)
    if web:
        bind()
        _add_web(app)
    return app


# Imported when they are needed: a list of commands needs no database, a command needs no
# endpoints, and neither needs the libraries of the other.
def bind_services(app: Flask, settings: Settings, clock: Clock | None = None) -> ServiceGroups:
    """Bind the database and the groups of services to an application. Connects to nothing.

    A group is built when it is used.
    """
    from userapi.infrastructure import database
    from userapi.wiring.groups import EXTENSION, ServiceGroups

    database.init_app(
        app,
        database_url=settings.database_url,
        direct_url=settings.database_direct_url,
        pool_size=settings.database_pool_size,
        tolerated_skew_seconds=settings.clock_skew_seconds,
    )
    groups: ServiceGroups = ServiceGroups(settings, clock)
    app.extensions[EXTENSION] = groups
    return groups


def load_modules_of_web() -> None:
    """Import what the web needs. Processes that are forked later share it."""
    for name in MODULES_OF_WEB:
        import_module(name)


def _class_for_web() -> type[Flask]:
    from userapi.api.application import Application

    return Application


def _add_web(app: Flask) -> None:
    load_modules_of_web()
    from userapi import api, console
    from userapi.wiring.services import add_services

    services = add_services(app)
    # Before the API, which limits the requests of every endpoint that there is.
    console.init_app(app, services)
    api.init_app(app, services)
