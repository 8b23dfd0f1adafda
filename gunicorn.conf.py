"""How Gunicorn serves the application; every value can be set from the environment.

In the embedded default Gunicorn alone makes a service: it brings the database to the present
migration before the first worker starts.
"""

import fcntl
import gc
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

_METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"
_METRICS_MASTER = "USERAPI_METRICS_MASTER"


def _prepare_metrics_dir() -> tuple[Path, IO[bytes] | None]:
    """Return the empty folder that the workers count in, and what holds it while they run.

    Counts that an earlier run left would be added to those of this one. A master that reads this
    file again (SIGHUP) goes on with its folder, and one that takes over from another (SIGUSR2) gets
    a folder of its own: counts never go back.
    """
    given, master = os.environ.get(_METRICS_DIR), os.environ.get(_METRICS_MASTER)
    if given and master == str(os.getpid()):
        return Path(given), None
    os.environ[_METRICS_MASTER] = str(os.getpid())
    if given and not master:
        folder = Path(given)
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob("*.db"):
            left_over.unlink()
        return folder, None
    for abandoned in Path(tempfile.gettempdir()).glob("userapi-metrics-*/held"):
        _remove_unless_held(abandoned)
    folder = Path(tempfile.mkdtemp(prefix="userapi-metrics-"))
    held = (folder / "held").open("wb")
    fcntl.flock(held, fcntl.LOCK_EX)
    os.environ[_METRICS_DIR] = str(folder)
    return folder, held


def _remove_unless_held(lock: Path) -> None:
    """Remove a folder whose processes were all killed: the lock goes with the last of them."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
    except OSError:
        return  # It is in use, or another user's, or another master was quicker.


# Until Gunicorn handles it, Ctrl-C ends the process without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# Before anything imports prometheus_client, which looks at the variable once.
_metrics_dir, _held = _prepare_metrics_dir()

from userapi.settings import (  # noqa: E402 - see above
    Settings,
    SettingsError,
    faults_end_the_process,
    read_environment,
)

with faults_end_the_process():
    _settings = Settings.load()
_environment = read_environment()

# Threads beyond PASSWORD_HASH_QUEUE: at most eight for log-ins being hashed, the rest for reads.
SPARE_THREADS = 16


def _number(variable: str, default: int, most: int, least: int = 1) -> int:
    given = _environment.get(variable) or str(default)
    if not given.isascii() or not given.isdigit() or not least <= int(given) <= most:
        print(
            f"userapi: {variable}: must be a whole number from {least} to {most}", file=sys.stderr
        )
        sys.exit(1)
    return int(given)


wsgi_app = "wsgi:app"
bind = _settings.bind
# Alone, without Redis, one process counts the limits for all; its threads share the work.
workers = _number("WEB_CONCURRENCY", 1 if _settings.embedded else 2, 256)
worker_class = "userapi.serving.worker.Worker"
logger_class = "userapi.serving.worker.Logger"
# Each log-in that waits for a hash, or is being hashed, holds a thread; all else needs others.
_least_threads = _settings.password_hash_queue + SPARE_THREADS
threads = _number("GUNICORN_THREADS", _least_threads, 10_000 + SPARE_THREADS)
if threads < _least_threads:
    print(
        f"userapi: GUNICORN_THREADS: must be at least PASSWORD_HASH_QUEUE + {SPARE_THREADS},"
        f" here {_least_threads}",
        file=sys.stderr,
    )
    sys.exit(1)
timeout = 30
graceful_timeout = 25
# Longer than load balancers keep idle connections (mostly 60 s), so that none is closed in use.
keepalive = _number("KEEPALIVE_SECONDS", 75, 3600, least=0)
# How long the service says "not ready" and goes on answering before it stops listening, so that a
# load balancer sees it first. Ctrl-C does not wait.
_drain_seconds = _number("DRAIN_SECONDS", 0 if _settings.embedded else 2, 300, least=0)
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
    """Look for a usable database and a key to sign with, and migrate the embedded database.

    A deployment with a server migrates by `flask db upgrade`.
    """
    from flask_migrate import upgrade

    from userapi import create_app
    from userapi.infrastructure.database import db, require_unicode_database
    from userapi.serving.listening import require_free

    if not {"GUNICORN_FD", "LISTEN_FDS"} & os.environ.keys():
        try:
            # The former process may need a moment to end.
            require_free(bind, within_seconds=3)
        except SettingsError as exc:
            server.log.error(str(exc))
            sys.exit(1)
    with faults_end_the_process():
        require_unicode_database(_settings)
        application = create_app(_settings)
        application.extensions["userapi"].keys.require_active()
    if _settings.embedded:
        with application.app_context():
            upgrade()
            db.engine.dispose()  # No worker inherits a connection.


def when_ready(server: Any) -> None:
    """Share memory with the workers; on SIGTERM answer "not ready" before all stops."""
    from userapi.serving.draining import drain_before_stopping

    # What is loaded by now is shared with the workers, until a garbage collector writes to it.
    gc.collect()
    gc.freeze()
    drain_before_stopping(_drain_seconds)


# Held by the one Gunicorn worker that has the background work; it goes when its process does.
_turn = tempfile.TemporaryFile()
_workers_inside: list[Any] = []


def post_worker_init(worker: Any) -> None:
    """Run the background work inside the service where nothing else runs it."""
    if _settings.runs_worker_inside:
        from userapi.worker import EmbeddedWorker, Worker, tasks_of

        application = worker.wsgi
        background = Worker(application, tasks_of(application.extensions["userapi"]), _settings)
        inside = EmbeddedWorker(background, _turn)
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
