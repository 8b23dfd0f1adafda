"""What commands share: services, the actor, password input, error messages, tables, progress."""

import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

import click
import orjson
from flask import current_app
from flask.cli import with_appcontext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from userapi.actor import Actor, system_actor
from userapi.characters import has_controls, printable
from userapi.clock import rfc3339
from userapi.errors import Invalid, ServiceError
from userapi.infrastructure.database import require_unicode_database
from userapi.settings import SettingsError
from userapi.wiring.groups import EXTENSION, ServiceGroups

if TYPE_CHECKING:
    from userapi.accounts.views import UserView

Command = TypeVar("Command", bound=Callable[..., Any])


def services() -> ServiceGroups:
    """Return the services of the application, by group. A group is built when it is used."""
    return cast(ServiceGroups, current_app.extensions[EXTENSION])


def operator() -> Actor:
    """Return the actor of changes that are made on the command line."""
    return system_actor("cli", correlation_id=f"cli-{secrets.token_hex(8)}")


def safely(command: Command) -> Command:
    """Run a command in the application's context. An error becomes a message and exit code 1.

    So does a database that cannot store Unicode.
    """

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        require_unicode_database(services().settings.database_url)
        return command(*args, **kwargs)

    return safely_on_any_database(cast(Command, run))


def safely_on_any_database(command: Command) -> Command:
    """Do the same for a command that reports problems of the database itself."""

    @with_appcontext
    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except Invalid as exc:
            lines = [f"{error.field}: {error.message}" for error in exc.errors]
            message = "\n       ".join(map(printable, lines or [exc.detail]))
            raise click.ClickException(message) from exc
        except ServiceError as exc:
            raise click.ClickException(printable(exc.detail)) from exc
        except SettingsError as exc:
            raise click.ClickException(str(exc)) from exc
        except UnicodeEncodeError as exc:
            # Python represents bytes that are not UTF-8 as surrogates (PEP 383).
            raise click.ClickException("An argument is not UTF-8.") from exc
        except (DBAPIError, PoolTimeout) as exc:
            raise click.ClickException(
                "The database cannot be used. Run `flask doctor` for details."
            ) from exc

    return cast(Command, run)


class PlainText(click.ParamType[str]):
    """An option that is a text of limited length without control characters, as in the API."""

    name = "text"

    def __init__(self, max_length: int) -> None:
        self._max_length = max_length

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text. Raises BadParameter."""
        if has_controls(value):
            self.fail("must not contain control characters.", param, ctx)
        if len(value) > self._max_length:
            self.fail(f"must be at most {self._max_length} characters.", param, ctx)
        return value


def read_password(*, from_stdin: bool, generate: bool) -> tuple[str, bool]:
    """Return a password, and whether it was generated.

    It is never an argument, because other users of the machine can see those.
    """
    if generate:
        return generate_password(), True
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n"), False
    if not sys.stdin.isatty():
        raise click.UsageError("Without a terminal, use --password-stdin or --generate.")
    return click.prompt("Password", hide_input=True, confirmation_prompt=True), False


def generate_password() -> str:
    """Return a random password of 120 bits, in groups that can be read aloud."""
    text = secrets.token_hex(15)
    return "-".join(text[start : start + 6] for start in range(0, len(text), 6))


as_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document.")


def print_json(document: object) -> None:
    """Print one JSON document, with moments and ids in the format of the API."""
    click.echo(orjson.dumps(document, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | frozenset | set):
        return list(value)
    return str(value)


def user_named(text: str) -> "UserView":
    """Return the user with this id, name or e-mail address. Raises UserNotFound."""
    try:
        return services().directory.accounts.get(UUID(text))
    except ValueError:
        return services().directory.accounts.get_by_name(text)


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows in aligned columns.

    Escapes control sequences: names and addresses come from users.
    """
    cells = [list(head), *[["" if c is None else printable(str(c)) for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for number, row in enumerate(cells):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.secho(line.rstrip(), bold=number == 0)


INTERRUPTED = 130  # The exit code that shells report for SIGINT.
LINE_EVERY_SECONDS = 10.0


class Progress:
    """Shows the progress of a long command on standard error: a bar on a terminal, else lines."""

    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self._total = max(total, 1)
        self._bar = (
            click.progressbar(length=self._total, label=label, file=sys.stderr)
            if sys.stderr.isatty()
            else None
        )
        self._line_at = time.monotonic() + LINE_EVERY_SECONDS
        self.done = 0

    def advance(self, count: int) -> None:
        """Add `count` finished rows."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() >= self._line_at:
            self._line_at = time.monotonic() + LINE_EVERY_SECONDS
            percent = min(100, self.done * 100 // self._total)
            click.echo(f"{self._label}: {self.done} of {self._total} rows ({percent} %)", err=True)

    def __enter__(self) -> "Progress":
        """Show the bar."""
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        """Finish the bar."""
        if self._bar is not None:
            self._bar.__exit__(*exception)
