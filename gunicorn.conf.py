"""How Gunicorn serves the application; every value can be set from the environment.

In the embedded default Gunicorn needs no other command: it migrates the database before the first
worker starts.
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
    """Return an empty folder for the counts of the workers, and the open lock file in it.

    The counts of an earlier run would be added to those of this one. A master that reads this file
    again (SIGHUP) keeps its folder, and a master that replaces another (SIGUSR2) uses a folder of
    its own, so that no counter decreases.
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
    """Remove a folder whose processes have all ended; the lock ends with the last of them."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
    except OSError:
        return  # In use, owned by another user, or removed by another master.


# Until Gunicorn handles it, Ctrl-C ends the process without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# Before anything imports prometheus_client, which reads the variable once.
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

# Threads beyond PASSWORD_HASH_QUEUE: up to eight that hash for log-ins, the rest for reads.
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
# In the embedded default one process counts rate limits in memory; its threads share the work.
workers = _number("WEB_CONCURRENCY", 1 if _settings.embedded else 2, 256)
worker_class = "userapi.serving.worker.Worker"
logger_class = "userapi.serving.worker.Logger"
# Each log-in occupies a thread while it waits for its hash; other requests need further threads.
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
# Longer than load balancers keep idle connections (usually 60 s), so that none is closed in use.
keepalive = _number("KEEPALIVE_SECONDS", 75, 3600, least=0)
# How long the service reports "not ready" and still serves before it stops listening, so that a
# load balancer notices. Ctrl-C does not wait.
_drain_seconds = _number("DRAIN_SECONDS", 0 if _settings.embedded else 2, 300, least=0)
# Limits on what Gunicorn reads before the application (RFC 9112 §3, RFC 9110 §5.4).
limit_request_line = 8190
limit_request_fields = 64
limit_request_field_size = 16384
# No control socket, and no access log in addition to that of the application.
control_socket_disable = True
accesslog = None
errorlog = "-"
loglevel = _settings.log_level.lower()
proc_name = "userapi"
forwarded_allow_ips = "127.0.0.1"


def on_starting(server: Any) -> None:
    """Check the database and the signing key, and migrate the embedded database.

    With PostgreSQL, the operator migrates with `flask db upgrade`.
    """
    # Modules create many objects that stay. Collections meanwhile take a tenth of the start.
    gc.disable()

    from userapi import bind_services, create_app, load_modules_of_web
    from userapi.infrastructure.database import require_no_pooler, require_unicode_database
    from userapi.serving.listening import require_free

    if not {"GUNICORN_FD", "LISTEN_FDS"} & os.environ.keys():
        try:
            # The previous process may need a moment to end.
            require_free(bind, within_seconds=3)
        except SettingsError as exc:
            server.log.error(str(exc))
            sys.exit(1)
    with faults_end_the_process():
        require_unicode_database(_settings.database_url)
        if _settings.runs_worker_inside:
            require_no_pooler(_settings.database_direct_url)
        application = create_app(_settings, web=False)
        bind_services(application, _settings).keys.keys.require_active()
    if _settings.embedded:
        _migrate(application)
    # Each worker creates an application. The workers share the modules.
    load_modules_of_web()


def _migrate(application: Any) -> None:
    from flask_migrate import upgrade

    from userapi.infrastructure.database import db, init_migrations

    init_migrations(application)
    with application.app_context():
        upgrade()
        db.engine.dispose()  # No worker inherits a connection.


def when_ready(server: Any) -> None:
    """Share memory with the workers; report "not ready" for a while after SIGTERM."""
    from userapi.serving.draining import drain_before_stopping

    # Workers share what is loaded by now, unless the garbage collector writes to it.
    gc.collect()
    gc.freeze()
    gc.enable()
    drain_before_stopping(_drain_seconds)


# Locked by the one Gunicorn worker that runs the background tasks; the lock ends with its process.
_turn = tempfile.TemporaryFile()
_workers_inside: list[Any] = []


def post_worker_init(worker: Any) -> None:
    """Run the background tasks inside the service if no worker process runs them."""
    if _settings.runs_worker_inside:
        from userapi.worker import EmbeddedWorker, build_worker

        application = worker.wsgi
        background = build_worker(application, application.extensions["userapi"])
        inside = EmbeddedWorker(background, _turn)
        inside.start()
        _workers_inside.append(inside)


def worker_exit(server: Any, worker: Any) -> None:
    """Let the background tasks finish what they have begun."""
    for inside in _workers_inside:
        inside.stop(within_seconds=10)


def child_exit(server: Any, worker: Any) -> None:
    """Remove an ended worker from the gauges."""
    from prometheus_flask_exporter.multiprocess import GunicornPrometheusMetrics

    GunicornPrometheusMetrics.mark_process_dead_on_child_exit(worker.pid)


def on_exit(server: Any) -> None:
    """Remove the folder of the counts."""
    shutil.rmtree(_metrics_dir, ignore_errors=True)
