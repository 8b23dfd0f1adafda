"""flask worker: events, mails, suspensions, seals and clean-up."""

import signal

import click
from flask import Flask, current_app

from userapi.worker import Worker, tasks_of

from .support import safely, services


@click.command("worker", help="Publish events, send mails, seal the audit log, clean up.")
@safely
def command() -> None:
    """Work until SIGTERM or SIGINT, finish what is at hand, and end."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    worker = Worker(app, tasks_of(services()), services().settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: worker.ask_to_stop())
    worker.run()
