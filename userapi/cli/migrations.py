"""flask db: the commands of Flask-Migrate, which load Alembic."""

from typing import Any

import click
from flask import current_app
from flask.cli import with_appcontext
from flask_migrate.cli import db

from userapi.infrastructure.database import init_migrations


@with_appcontext
def _prepare(**options: Any) -> Any:
    """Register the folder of the migrations with Flask-Migrate."""
    init_migrations(current_app)
    return db.callback(**options)


command = click.Group(
    db.name, help=db.help, params=db.params, callback=_prepare, commands=db.commands
)
