"""The `flask` commands for operators. Each parses its arguments, calls a use case and prints.

The module of a command is loaded when the command is called, so that neither the service nor
`flask --help` loads it.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click
from flask import Flask
from flask.cli import AppGroup

# The name of each command, its module, and its line in the list of commands.
COMMANDS = {
    "api-keys": ("userapi.cli.api_keys", "List, create, rotate, revoke and check API keys."),
    "audit": ("userapi.cli.audit", "Read, export, verify and prune the audit log."),
    "db": ("userapi.cli.migrations", "Perform database migrations."),
    "doctor": (
        "userapi.cli.doctor",
        "Report what is misconfigured or insecure, and how to fix it.",
    ),
    "encryption": (
        "userapi.cli.encryption",
        "Encrypt stored secrets with the current key.",
    ),
    "events": ("userapi.cli.events", "List the events of the outbox, and publish them again."),
    "keys": (
        "userapi.cli.keys",
        "Create, rotate, revoke and list the keys that sign access tokens.",
    ),
    "mails": ("userapi.cli.mails", "List, retry and discard unsent mails."),
    "mfa": ("userapi.cli.mfa", "Show who has a second factor, by role."),
    "roles": ("userapi.cli.roles", "Export roles, and apply roles from a file."),
    "seed": (
        "userapi.cli.seed",
        "Fill the database with realistic test users and service accounts.",
    ),
    "service-accounts": (
        "userapi.cli.service_accounts",
        "List, create, suspend, activate and delete service accounts.",
    ),
    "sessions": ("userapi.cli.sessions", "List and end sessions."),
    "users": ("userapi.cli.users", "Create, find and change users."),
    "worker": (
        "userapi.cli.worker",
        "Publish events, send mails, seal the audit log, clean up.",
    ),
}


class LazyCommand(click.Command):
    """A command whose module is loaded when the command is called."""

    def __init__(
        self,
        name: str,
        text: str,
        *,
        module: str,
        attribute: str = "command",
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        """`text` is its line in the list of commands. `prepare` runs before it is loaded."""
        super().__init__(name, help=text)
        self._module = module
        self._attribute = attribute
        self._prepare = prepare

    def load(self) -> click.Command:
        """Prepare, load the module and return its command."""
        with _modules_kept():
            self._prepare()
            command: click.Command = getattr(import_module(self._module), self._attribute)
        return command

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        """Return a context of the loaded command, which click then runs."""
        return self.load().make_context(*arguments, **extra)


class CommandGroup(AppGroup):
    """The commands of the application."""

    def __init__(self, name: str, prepare: Callable[[], None]) -> None:
        super().__init__(name)
        self._prepare = prepare

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *COMMANDS} - UNUSED)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command. Its module is not loaded yet."""
        if cmd_name in COMMANDS:
            module, text = COMMANDS[cmd_name]
            return LazyCommand(cmd_name, text, module=module, prepare=self._prepare)
        return None if cmd_name in UNUSED else super().get_command(ctx, cmd_name)


@contextmanager
def _modules_kept() -> Iterator[None]:
    """Pause the garbage collector in the block, and exclude from it what the block has created.

    Loading modules creates many objects that stay. Collecting them takes a fifth of the time.
    """
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # Only in a separate process: tests run many commands.
            gc.freeze()
        gc.enable()


# Commands of extensions that have no use here: the settings define the limits, and the service
# serves the document as /openapi.json.
UNUSED = frozenset({"limiter", "openapi"})


def init_app(app: Flask, prepare: Callable[[], None]) -> None:
    """Add the commands to the application, and remove those of extensions from `flask`.

    `prepare` binds the services. It runs before a command is loaded.
    """
    context = click.get_current_context(silent=True)
    root = context.find_root().command if context else None
    if isinstance(root, click.Group):
        for name in UNUSED:
            root.commands.pop(name, None)
    app.cli = CommandGroup(app.name, prepare)
