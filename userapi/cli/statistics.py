"""flask users stats: statistics as tables with small bars."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import click

from userapi.infrastructure.user_counts import rebuild_user_counts
from userapi.statistics import MAX_DAYS, Figures

from .support import as_json_option, print_json, print_table, safely, services

EIGHTHS = " ▏▎▍▌▋▊▉█"
BAR_WIDTH = 12


@click.command("stats")
@click.option("--days", type=click.IntRange(1, MAX_DAYS), default=30, show_default=True)
@click.option("--recount", is_flag=True, help="Recount the users first, after a restore.")
@as_json_option
@safely
def command(days: int, recount: bool, as_json: bool) -> None:
    """Print the number of users, and what they did each day (UTC)."""
    if recount:
        rebuild_user_counts()
    figures = services().statistics.statistics.figures(days)
    if as_json:
        print_json(asdict(figures))
    else:
        _print_figures(figures)


def bar(value: int, largest: int, width: int = BAR_WIDTH) -> str:
    """Return a bar in eighths of a character; a value above zero is always visible."""
    if value <= 0 or largest <= 0:
        return ""
    eighths = max(1, value * width * 8 // largest)
    return EIGHTHS[8] * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def _print_figures(figures: Figures) -> None:
    """Print all statistics."""
    _print_parts("STATUS", figures.by_status, figures.total)
    _print_parts("ROLE", figures.by_role, figures.total)
    active = {f"active {name}": count for name, count in figures.active_users.items()}
    users = {
        "all": figures.total,
        **active,
        "locked": figures.locked,
        "with a second factor": figures.mfa.enabled,
        "without a demanded one": figures.mfa.demanded_without,
    }
    _print_parts("USERS", users, figures.total)
    click.echo(f"Live sessions: {figures.live_sessions}\n")
    series = [
        [day.registrations for day in figures.days],
        [day.logins for day in figures.days],
        [day.failed_logins for day in figures.days],
        [day.lockouts for day in figures.days],
    ]
    print_table(
        ["DAY", "SIGN-UPS", "", "LOG-INS", "", "FAILED", "", "LOCKOUTS", ""],
        [
            [day.date, *_with_bars([counts[number] for counts in series], series)]
            for number, day in enumerate(figures.days)
        ],
    )


def _print_parts(title: str, counts: Mapping[str, int], whole: int) -> None:
    print_table(
        [title, "COUNT", ""],
        [[name, count, bar(count, whole)] for name, count in counts.items()],
    )
    click.echo()


def _with_bars(values: Sequence[int], series: Sequence[Sequence[int]]) -> list[object]:
    cells: list[object] = []
    for value, counts in zip(values, series, strict=True):
        cells += [value, bar(value, max(counts))]
    return cells
