"""The `flask` commands of operators. Each parses, calls a service and prints; the rules are
elsewhere.

A command's module is loaded when the command is called: the service itself never pays for it.
"""

from importlib import import_module

import click
from flask import Flask
from flask.cli import AppGroup

COMMANDS = {
    "audit": "userapi.cli.audit",
    "doctor": "userapi.cli.doctor",
    "events": "userapi.cli.events",
    "keys": "userapi.cli.keys",
    "mails": "userapi.cli.mails",
    "roles": "userapi.cli.roles",
    "seed": "userapi.cli.seed",
    "sessions": "userapi.cli.sessions",
    "users": "userapi.cli.users",
    "worker": "userapi.cli.worker",
}


class CommandGroup(AppGroup):
    """Finds each command in its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *COMMANDS} - UNUSED)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, loaded now."""
        if cmd_name in COMMANDS:
            command = import_module(COMMANDS[cmd_name]).command
            return command if isinstance(command, click.Command) else None
        return None if cmd_name in UNUSED else super().get_command(ctx, cmd_name)


# Commands that extensions bring along and that do nothing useful here: limits are named in the
# settings, and the document is served as /openapi.json.
UNUSED = frozenset({"limiter", "openapi"})


def init_app(app: Flask) -> None:
    """Give the application its commands, and `flask` no others than useful ones."""
    context = click.get_current_context(silent=True)
    root = context.find_root().command if context else None
    if isinstance(root, click.Group):
        for name in UNUSED:
            root.commands.pop(name, None)
    app.cli = CommandGroup(app.name)
