"""How Gunicorn serves the application; every value can be set from the environment.

In the embedded default Gunicorn alone makes a service: it brings the database to the present
migration before the first worker starts.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

# Before anything imports prometheus_client, which looks at it once. Counts of an earlier run that
# are left in it would be added to those of this one.
_metrics_dir = Path(
    os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="userapi-metrics-"))
)
_metrics_dir.mkdir(parents=True, exist_ok=True)
for _left_over in _metrics_dir.glob("*.db"):
    _left_over.unlink()

from userapi.settings import Settings, SettingsError  # noqa: E402 - see above

try:
    _settings = Settings.load()
except SettingsError as exc:
    for _problem in exc.problems:
        print(f"userapi: {_problem}", file=sys.stderr)
    sys.exit(1)

wsgi_app = "wsgi:app"
bind = os.environ.get("BIND", "127.0.0.1:8000")
# Alone, without Redis, one process counts the limits for all; its threads share the work.
workers = int(os.environ.get("WEB_CONCURRENCY", "1" if _settings.embedded else "2"))
worker_class = "gthread"
threads = int(os.environ.get("GUNICORN_THREADS", "8"))
timeout = 30
graceful_timeout = 25
keepalive = 15
# What a client sends before the application sees it has bounds, too (RFC 9112 §3, RFC 9110 §5.4).
limit_request_line = 8190
limit_request_fields = 64
limit_request_field_size = 16384
# No socket that takes commands, and no access log beside the application's own.
control_socket_disable = True
accesslog = None
errorlog = "-"
loglevel = _settings.log_level.lower()
proc_name = "userapi"
forwarded_allow_ips = "127.0.0.1"


def on_starting(server: Any) -> None:
    """Migrate the embedded database; a deployment with a server migrates by `flask db upgrade`."""
    from flask_migrate import upgrade

    from userapi import create_app

    application = create_app(_settings)
    if _settings.embedded:
        with application.app_context():
            upgrade()


def post_fork(server: Any, worker: Any) -> None:
    """Log through the application's formatter from the first line on."""
    from userapi.observability import configure_logging

    configure_logging(_settings)


# Held by the one Gunicorn worker that has the background work; it goes when its process does.
_turn = tempfile.TemporaryFile()
_workers_inside: list[Any] = []


def post_worker_init(worker: Any) -> None:
    """Run the background work inside the service where nothing else runs it."""
    if _settings.runs_worker_inside:
        from userapi.worker import Worker, WorkerInside, tasks_of

        application = worker.wsgi
        background = Worker(application, tasks_of(application.extensions["userapi"]), _settings)
        inside = WorkerInside(background, _turn)
        inside.start()
        _workers_inside.append(inside)


def worker_exit(server: Any, worker: Any) -> None:
    """Let the background work finish what it is at."""
    for inside in _workers_inside:
        inside.stop(within_seconds=10)


def child_exit(server: Any, worker: Any) -> None:
    """Take a worker that has ended out of the sums of what is going on now."""
    from prometheus_flask_exporter.multiprocess import GunicornPrometheusMetrics

    GunicornPrometheusMetrics.mark_process_dead_on_child_exit(worker.pid)


def on_exit(server: Any) -> None:
    """Leave nothing behind."""
    shutil.rmtree(_metrics_dir, ignore_errors=True)
