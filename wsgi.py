"""The application that Gunicorn serves, and whose commands `flask` runs."""

import gc
import os
import sys

# Modules create many objects that stay. Collections meanwhile take a tenth of the start.
gc.disable()

from userapi import create_app  # noqa: E402
from userapi.settings import faults_end_the_process  # noqa: E402

# Flask's own commands that need the endpoints.
NEEDS_ENDPOINTS = {"routes", "run", "shell"}


def _is_command() -> bool:
    """Return whether `flask` imports this module for a command that needs no endpoints."""
    by_flask = os.environ.get("FLASK_RUN_FROM_CLI") == "true" and "gunicorn" not in sys.modules
    return by_flask and not NEEDS_ENDPOINTS & set(sys.argv)


with faults_end_the_process():
    app = create_app(web=not _is_command())

if not _is_command():  # A command has yet to load its own modules.
    gc.enable()
