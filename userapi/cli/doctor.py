"""flask doctor: what is wrong with this installation, and how to fix it."""

import click

from userapi.diagnosis.findings import Finding, Level
from userapi.diagnosis.report import diagnose
from userapi.wiring.mail_server import build_mail_server
from userapi.wiring.relying_party import build_relying_party

from .support import as_json_option, print_json, safely_on_any_database, services

_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.FAULT: "red"}
_MARKS = {Level.OK: "✓", Level.WARNING: "!", Level.FAULT: "✗"}


@click.command("doctor", help="Report what is misconfigured or insecure, and how to fix it.")
@as_json_option
@safely_on_any_database
def command(as_json: bool) -> None:
    """Print every finding; exit with 1 if there is a fault."""
    known = services()
    findings = list(
        diagnose(
            known.settings,
            clock=known.clock,
            keys=known.keys.keys,
            key_folder=known.keys.key_folder,
            mail_server=build_mail_server(known.settings),
            peppers=known.secrets.peppers,
            seals=known.seals.audit_seals,
            secret_rotation=known.secrets.totp_secret_rotation,
            batch_rotation=known.secrets.import_batch_rotation,
            relying_party=build_relying_party(known.settings),
        )
    )
    faults = sum(finding.level is Level.FAULT for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    if as_json:
        items = [_document(finding) for finding in findings]
        print_json({"items": items, "faults": faults, "warnings": warnings})
    else:
        for finding in findings:
            _print(finding)
        click.echo(f"\n{faults} to fix, {warnings} to consider")
    if faults:
        raise SystemExit(1)


def _print(finding: Finding) -> None:
    mark = click.style(_MARKS[finding.level], fg=_COLOURS[finding.level], bold=True)
    click.echo(f" {mark} {finding.subject:9} {finding.text}")
    if finding.fix:
        click.echo(f"             → {finding.fix}")


def _document(finding: Finding) -> dict[str, str | None]:
    return {
        "subject": finding.subject,
        "level": finding.level,
        "text": finding.text,
        "fix": finding.fix,
    }
