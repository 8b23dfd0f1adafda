"""flask users import and export: files of any size."""

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

import click

from userapi.accounts.imports.files import ImportFormat, UserFile, open_text
from userapi.accounts.imports.results import ImportResult
from userapi.accounts.models import UserStatus
from userapi.accounts.search import UserFilter
from userapi.characters import printable
from userapi.infrastructure.export import ExportFormat, with_byte_order_mark

from .support import operator, safely, services

WORKBOOK_SUFFIXES = {"xls", "xlsm", "xlsx", "ods"}


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--format",
    "format_name",
    type=click.Choice([str(f) for f in ImportFormat]),
    help="Format of the file; default: by the file name.",
)
@click.option(
    "--encoding",
    type=click.Choice(["utf-8", "utf-16", "windows-1252", "iso-8859-1"], case_sensitive=False),
    help="Encoding of the text; default: by the byte order mark, otherwise UTF-8.",
)
@click.option("--dry-run", is_flag=True, help="Check every row and change nothing.")
@safely
def import_users(file: Path, format_name: str | None, encoding: str | None, dry_run: bool) -> None:
    """Import users from NDJSON or CSV. Prints each rejected row and imports the others.

    After an interruption, run the command again with the same file: it skips rows whose user name
    and e-mail address belong to one existing user. Each plain password is hashed, so files with
    hashes or without passwords are much faster.
    """
    file_format = _format_of(file, format_name)
    if not file.is_file():
        raise click.ClickException(f"{file} must be a regular file, because it is read twice.")
    # The first reading finds errors of the file before anything changes, and the number of rows.
    with _opened(file, file_format, encoding) as lines:
        whole = UserFile(lines, file_format)
        length = sum(1 for _ in whole)
    if whole.ignored_columns:
        click.echo(f"Ignored columns: {', '.join(whole.ignored_columns)}.", err=True)
    counts: Counter[str] = Counter()
    with (
        _opened(file, file_format, encoding) as lines,
        click.progressbar(
            length=length, label="Checking" if dry_run else "Importing", show_pos=True
        ) as bar,
    ):
        for results in services().imports.user_imports.run(
            UserFile(lines, file_format), actor=operator(), dry_run=dry_run, resume=True
        ):
            for result in results:
                counts[result.status] += 1
                if result.status == "error":
                    click.echo(f"\nrow {result.row}: {_reason(result)}", err=True)
            bar.update(len(results))
    done = "would be created" if dry_run else "created"
    click.echo(
        f"{counts['created']} {done}, {counts['skipped']} skipped because they exist, "
        f"{counts['error']} rejected."
    )
    if counts["error"]:
        raise click.exceptions.Exit(1)


@click.command("export")
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--format",
    "format_name",
    type=click.Choice([str(f) for f in ExportFormat]),
    help="Format; default: by the file name, otherwise ndjson.",
)
@click.option("--bom", is_flag=True, help="Start CSV with a byte order mark, for Excel.")
@click.option("--search", help="Part of a name or address.")
@click.option("--status", type=click.Choice([str(s) for s in UserStatus]))
@click.option("--role", help="Only users with this role.")
@safely
def export_users(
    file: Path | None,
    format_name: str | None,
    bom: bool,
    search: str | None,
    status: str | None,
    role: str | None,
) -> None:
    """Export users to a file or to standard output. The file appears only when it is complete."""
    suffix = file.suffix.lstrip(".").lower() if file else ""
    chosen = ExportFormat(format_name or (suffix if suffix in list(ExportFormat) else "ndjson"))
    wanted = UserFilter(search=search, status=UserStatus(status) if status else None, role=role)
    pieces = services().accounts.user_exports.pieces(wanted, chosen, actor=operator())
    if bom:
        pieces = with_byte_order_mark(pieces, chosen)
    with _written(file) as out:
        for piece in pieces:
            out.write(piece)
    if file:
        click.secho(f"Wrote {file}.", fg="green", err=True)


def _format_of(file: Path, name: str | None) -> ImportFormat:
    suffix = file.suffix.lstrip(".").lower()
    by_suffix = {
        "csv": "csv",
        "tsv": "csv",
        "ndjson": "ndjson",
        "jsonl": "ndjson",
        "json": "ndjson",
    }
    chosen = name or by_suffix.get(suffix)
    if chosen is None:
        if suffix in WORKBOOK_SUFFIXES:
            raise click.UsageError("This is a workbook. Save it as CSV, and import that file.")
        raise click.UsageError("State the format with --format ndjson or --format csv.")
    return ImportFormat(chosen)


@contextmanager
def _opened(file: Path, file_format: ImportFormat, encoding: str | None) -> Iterator[TextIO]:
    with file.open("rb") as raw, open_text(raw, file_format, charset=encoding) as lines:
        yield lines


@contextmanager
def _written(file: Path | None) -> Iterator[BinaryIO]:
    """Yield a stream to write to. The file is renamed into place when it is complete."""
    if file is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        # mkstemp creates a file that only its owner can read: it contains personal data.
        handle, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    except OSError as exc:
        raise click.ClickException(f"{file} cannot be written: {exc.strerror}.") from exc
    try:
        with os.fdopen(handle, "wb") as out:
            yield out
        os.replace(draft, file)
    except BaseException:
        os.unlink(draft)
        raise


def _reason(result: ImportResult) -> str:
    if not result.errors:
        return result.code or ""
    return printable("; ".join(f"{e.field}: {e.message}" for e in result.errors))
