"""The program behind `make run`: check the port, migrate, create the first administrator, serve.

With real servers the worker runs inside the service, unless another one is running already.
"""

import os
import signal
import sys
from pathlib import Path

from flask import Flask
from flask.cli import ScriptInfo

from userapi import create_app
from userapi.infrastructure.database import db
from userapi.infrastructure.heartbeat import running_workers
from userapi.serving.listening import require_free
from userapi.settings import Settings, faults_end_the_process
from userapi.wiring.services import Services

ROOT = Path(__file__).resolve().parent.parent
CREATE_ADMINISTRATOR = (
    *("users", "create-admin", "--if-none", "--generate"),
    *("--username", "admin", "--email", "admin@example.com"),
)


def main() -> None:
    """Prepare, and replace this process by Gunicorn."""
    # Ctrl-C stops the preparation immediately and without a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    with faults_end_the_process():
        settings = Settings.load()
        require_free(settings.bind)
        app = create_app(settings)
    _flask(app, "db", "upgrade")
    _flask(app, *CREATE_ADMINISTRATOR)
    if not settings.runs_worker_inside and "WORKER_EMBEDDED" not in os.environ:
        _give_it_a_worker(app)
    with app.app_context():
        db.engine.dispose()
    _tell_addresses(settings)
    os.chdir(ROOT)
    gunicorn = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
    os.execv(sys.executable, gunicorn)  # nosec B606


def _flask(app: Flask, *arguments: str) -> None:
    """Run a command of the service; if it fails, exit with its exit code."""
    try:
        app.cli.main(
            args=list(arguments),
            prog_name="flask",
            obj=ScriptInfo(create_app=lambda: app, load_dotenv_defaults=False),
        )
    except SystemExit as end:
        if end.code:
            raise


def _give_it_a_worker(app: Flask) -> None:
    services: Services = app.extensions["userapi"]
    with app.app_context():
        found = running_workers(services.clock.now())
    if found:
        print(f"A worker is running already: {', '.join(found)}.")
    else:
        os.environ["WORKER_EMBEDDED"] = "true"
        print("No worker is running: it runs inside the service.")


def _tell_addresses(settings: Settings) -> None:
    url = settings.local_url
    if settings.console_enabled:
        print(f"Open {url}/console/ for the console.")
    if settings.docs_enabled:
        print(f"Open {url}/docs to try the API.")
    if settings.public_base_url != url:
        print(f"Links in mails begin with {settings.public_base_url}.")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
