"""flask audit: read, export, verify and prune the audit log. Reading is recorded as well."""

import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import click
from flask.cli import AppGroup

from userapi.audit.findings import Anchor, Finding
from userapi.characters import printable
from userapi.infrastructure.export import ExportFormat, with_byte_order_mark
from userapi.infrastructure.pagination import PageRequest

from .audit_filters import filter_options, wanted_rows
from .support import (
    INTERRUPTED,
    Progress,
    as_json_option,
    operator,
    print_json,
    print_table,
    safely,
    services,
)

MAX_FINDINGS_SHOWN = 50
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

command = AppGroup("audit", help="Read, export, verify and prune the audit log.")


class Age(click.ParamType[timedelta]):
    """A duration such as 365d or 12h."""

    name = "age"

    def convert(self, value: Any, param: Any, ctx: Any) -> timedelta:
        """Return the duration. Fails for any other text."""
        match = re.fullmatch(r"([1-9][0-9]{0,6})([smhdw])", str(value))
        if match is None:
            self.fail("Must be a number and s, m, h, d or w, such as 365d.", param, ctx)
        return timedelta(**{UNITS[match[2]]: int(match[1])})


class AnchorText(click.ParamType[Anchor]):
    """The number and MAC of a seal, as `verify` prints and the worker logs them."""

    name = "number:mac"

    def convert(self, value: Any, param: Any, ctx: Any) -> Anchor:
        """Return the anchor."""
        match = re.fullmatch(r"([0-9]{1,18}):([0-9a-f]{64})?", str(value))
        if match is None:
            self.fail("Must be the number of a seal, a colon and its MAC.", param, ctx)
        return Anchor(int(match[1]), match[2] or "")


@command.command("list")
@filter_options
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@as_json_option
@safely
def list_rows(limit: int, as_json: bool, **filters: Any) -> None:
    """List rows, the newest first."""
    wanted, actor = wanted_rows(**filters), operator()
    rows: list[Any] = []
    cursor = None
    while len(rows) < limit:
        size = min(100, limit - len(rows))
        page = services().audit.audit_reader.page(
            wanted, PageRequest(page_size=size, cursor=cursor), actor=actor
        )
        rows += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    names = _names_of_targets(rows)
    if as_json:
        items = [{**row._mapping, "target_username": names.get(str(row.target_id))} for row in rows]
        print_json({"items": items, "total": page.total, "total_is_exact": page.total_is_exact})
        return
    print_table(
        ["WHEN (UTC)", "ACTION", "OUTCOME", "ACTOR", "ACTOR ID", "TARGET", "TARGET ID"]
        + ["FROM", "REQUEST"],
        [
            [
                row.occurred_at.strftime("%Y-%m-%d %H:%M:%S"),
                row.action,
                row.outcome,
                row.actor_username or row.actor_type,
                row.actor_id,
                " ".join(filter(None, (row.target_type, names.get(str(row.target_id))))),
                row.target_id,
                row.ip_address,
                row.correlation_id,
            ]
            for row in rows
        ],
    )
    more = "" if page.total_is_exact else "more than "
    click.echo(f"\n{len(rows)} of {more}{page.total} shown.")


def _names_of_targets(rows: Sequence[Any]) -> dict[str, str]:
    """Return the names, by id, of the existing users and service accounts that are targets."""
    users, accounts = (_targets(rows, kind) for kind in ("user", "service_account"))
    found = services().search.user_search.names(users) if users else {}
    if accounts:
        found |= services().machines.service_account_search.names(accounts)
    return {str(target_id): name for target_id, name in found.items()}


def _targets(rows: Sequence[Any], kind: str) -> set[UUID]:
    return {UUID(row.target_id) for row in rows if row.target_type == kind and row.target_id}


@command.command("export")
@filter_options
@click.option(
    "--format",
    "form",
    type=click.Choice([str(f) for f in ExportFormat]),
    default="ndjson",
    show_default=True,
)
@click.option("--bom", is_flag=True, help="Start CSV with a byte order mark, for Excel.")
@click.option(
    "--output",
    type=click.File("wb", lazy=True),
    default="-",
    help="Output file; default: standard output.",
)
@safely
def export(form: str, bom: bool, output: Any, **filters: Any) -> None:
    """Write rows as NDJSON or CSV, the newest first."""
    wanted = wanted_rows(**filters)
    pieces = services().audit.audit_reader.export(wanted, ExportFormat(form), actor=operator())
    if bom:
        pieces = with_byte_order_mark(pieces, ExportFormat(form))
    for piece in pieces:
        output.write(piece)


@command.command("prune")
@click.option(
    "--older-than", type=Age(), required=True, metavar="AGE", help="Such as 365d, 12h, 8w."
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--despite-findings", is_flag=True, help="Also delete rows that do not verify.")
@click.pass_context
@safely
def prune(ctx: click.Context, older_than: timedelta, yes: bool, despite_findings: bool) -> None:
    """Delete rows older than an age. This is recorded, and the rest still verifies.

    Ctrl-C stops it after the current batch. Run the command again for the rest.
    """
    pruning = services().verification.audit_pruning
    before = services().clock.now() - older_than
    count = pruning.count(before)
    if not yes:
        about = "" if count.is_exact else "about "
        click.confirm(
            f"Delete {about}{count.rows} rows from before {before:%Y-%m-%d %H:%M:%S} UTC?",
            abort=True,
        )
    deleted = 0

    def advance(rows: int) -> None:
        nonlocal deleted
        deleted += rows
        progress.advance(rows)

    try:
        # Each row is verified, and then deleted.
        with Progress("Verifying and pruning", 2 * count.rows) as progress:
            pruned = pruning.prune(
                before,
                actor=operator(),
                despite_findings=despite_findings,
                progress=advance,
                verified=progress.advance,
            )
    except KeyboardInterrupt:
        click.secho(
            f"Interrupted: {deleted} rows are deleted, which is recorded. Run the command again for"
            " the rest.",
            fg="yellow",
            err=True,
        )
        ctx.exit(INTERRUPTED)
    click.secho(f"Deleted {pruned.rows} rows and {pruned.seals} seals.", fg="green")


@command.command("seal")
@safely
def seal() -> None:
    """Seal all waiting rows, as the worker does each second."""
    sealed = 0
    while count := services().seals.audit_seals.seal_due():
        sealed += count
    click.secho(f"Sealed {sealed} rows.", fg="green")


@command.command("anchor")
@click.option("--reason", required=True, metavar="TEXT", help="The reason; recorded permanently.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation on a terminal.")
@safely
def anchor_chain(reason: str, yes: bool) -> None:
    """Begin a new chain of seals, for a chain whose key is lost.

    The former seals stay. `flask audit verify` reports where the new chain begins, and why.
    Confirmation is only required on a terminal.
    """
    if not yes and sys.stdin.isatty():
        click.confirm(
            "Seals whose key is lost can never be verified again. Begin a new chain?", abort=True
        )
    start = services().seals.audit_seals.begin_chain(reason, actor=operator())
    click.secho(f"A new chain begins at seal {start.number}.", fg="green")
    if start.lost_keys:
        click.secho(
            f"Seals of these keys can no longer be verified: {start.lost_keys}.", fg="yellow"
        )


@command.command("verify")
@click.option("--anchor", type=AnchorText(), help="A seal recorded earlier, as NUMBER:MAC.")
@click.pass_context
@safely
def verify(ctx: click.Context, anchor: Anchor | None) -> None:
    """Check every row and seal. Prints the faults and exits with 1 if there are any."""

    def report(finding: Finding) -> None:
        reported.append(1)
        if len(reported) <= MAX_FINDINGS_SHOWN:
            click.secho(printable(f"{finding.kind}: {finding}"), fg="red")

    reported: list[int] = []
    verification = services().verification.audit_verification
    progress = Progress("Verifying", verification.sealed_rows())
    try:
        with progress:
            verified = verification.verify(report, anchor=anchor, progress=progress.advance)
    except KeyboardInterrupt:
        click.secho(
            f"Interrupted after {progress.done} rows: {len(reported)} findings so far.",
            fg="yellow",
            err=True,
        )
        ctx.exit(INTERRUPTED)
    if verified.findings > MAX_FINDINGS_SHOWN:
        click.secho(f"… and {verified.findings - MAX_FINDINGS_SHOWN} more.", fg="red")
    click.echo(
        f"{verified.rows} rows in {verified.seals} seals checked; {verified.waiting} wait for a"
        f" seal, {verified.pruned} were pruned."
    )
    for start in verified.starts:
        click.secho(
            f"A new chain begins at seal {start.number}, {start.started_at:%Y-%m-%d %H:%M} UTC:"
            f" {printable(start.reason)}",
            fg="yellow",
        )
    if verified.unchecked:
        click.secho(
            f"{verified.unchecked} seals were made with a key that is not here. They and"
            " their rows cannot be checked.",
            fg="yellow",
        )
    if verified.findings:
        click.secho(f"The audit log does not verify: {verified.findings} findings.", fg="red")
        ctx.exit(1)
    click.secho("The audit log verifies.", fg="green")
    click.echo(f"Anchor to store elsewhere: {verified.head.seal}:{verified.head.mac}")
