"""Printing figures: tables with small bars."""

from collections.abc import Mapping, Sequence

import click

from userapi.statistics import Figures

from .support import print_table

EIGHTHS = " ▏▎▍▌▋▊▉█"
BAR_WIDTH = 12


def bar(value: int, largest: int, width: int = BAR_WIDTH) -> str:
    """Return a bar in eighths of a character; a value above zero is always visible."""
    if value <= 0 or largest <= 0:
        return ""
    eighths = max(1, value * width * 8 // largest)
    return EIGHTHS[8] * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def print_figures(figures: Figures) -> None:
    """Print all figures."""
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
