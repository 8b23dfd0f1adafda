"""flask worker: events, mails, suspensions, seals and clean-up."""

import signal

import click
from flask import Flask, current_app
from prometheus_client import start_http_server

from userapi.infrastructure.database import require_no_pooler
from userapi.infrastructure.logging import warn_of_unverified_connections
from userapi.wiring.services import add_services
from userapi.worker import build_worker

from .support import safely, services


@click.command("worker", help="Publish events, send mails, seal the audit log, clean up.")
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    help="Serve the worker's liveness and database connections as metrics on this port.",
)
@click.option("--metrics-address", default="127.0.0.1", show_default=True)
@safely
def command(metrics_port: int | None, metrics_address: str) -> None:
    """Run until SIGTERM or SIGINT, then finish the current tasks."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    settings = services().settings
    warn_of_unverified_connections(settings)
    require_no_pooler(settings.database_direct_url)
    all_services = add_services(app)
    worker = build_worker(app, all_services)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: worker.request_stop())
    if metrics_port is not None:
        start_http_server(metrics_port, metrics_address, all_services.metrics.registry)
    if not worker.run():
        raise SystemExit(1)
