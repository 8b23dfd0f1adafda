"""The targets of `make bench`, and the report that compares the measurements with them."""

import statistics
from collections.abc import Mapping, Sequence

BARE, SELECT, BCRYPT = "bare Flask", "Flask with one SELECT", "bcrypt"
VERIFY, ME = "GET /auth/verify", "GET /users/me"
BY_KEY, CLIENT_TOKEN = "GET /auth/verify by key", "POST /auth/token"
LIST, SEARCH = "GET /users/ (50 of all)", "GET /users/?search="
FEW_FOUND, MANY_FOUND = "GET /users/?search= (few)", "GET /users/?search= (8 %)"
REFRESH, LOG_IN = "POST /auth/refresh", "POST /auth/login"
FIRST_STEP = "POST /auth/login (first of two steps)"
CREATE, REGISTER = "POST /users/", "POST /auth/register"
# Operation, baseline, and the least ratio to it.
TARGETS = {
    VERIFY: {BARE: 0.50},
    BY_KEY: {BARE: 0.45},
    CLIENT_TOKEN: {BARE: 0.20},
    ME: {BARE: 0.50, SELECT: 0.60},
    LIST: {BARE: 0.18},
    REFRESH: {BARE: 0.20},
    LOG_IN: {BCRYPT: 0.92},
    FIRST_STEP: {BCRYPT: 0.92},
    CREATE: {BCRYPT: 0.93},
    REGISTER: {BCRYPT: 0.93},
}
# Operation, and the most milliseconds of CPU, of Gunicorn and PostgreSQL together.
CPU_TARGETS = {REFRESH: 2.2, FEW_FOUND: 1.5, SEARCH: 6.0}
# What is no ratio of two rates: unit, whether more or less of it is aimed at, and the target.
SECOND_STEP = "CPU of the second step of a log-in"
READ_IN_STORM = "p99 of a read in a storm of log-ins"
LOG_INS_IN_STORM = "log-ins in that storm"
EVENTS, DELIVERY = "events confirmed", "commit to delivery, p95"
SLOWEST_PAGE = "slowest page of the console, median"
START, MEMORY = "start to the first 200", "memory of a worker after load"
FIGURES = {
    SECOND_STEP: ("ms", "<=", 6.0),
    READ_IN_STORM: ("times alone", "<=", 3.0),
    LOG_INS_IN_STORM: ("of alone", ">=", 0.8),
    EVENTS: ("/s", ">=", 5000.0),
    DELIVERY: ("ms", "<=", 50.0),
    SLOWEST_PAGE: ("ms", "<=", 50.0),
    START: ("s", "<=", 1.5),
    MEMORY: ("MB", "<=", 85.0),
}

# The rate of bare Flask that was measured just before the operation.
BESIDE = "bare_per_second"

Rates = Mapping[str, Sequence[Mapping[str, float]]]


def print_report(rates: Rates, figures: Mapping[str, Sequence[float]]) -> None:
    """Print the medians, their ratios to the baselines, and which targets are missed."""
    header = f"{'operation':38} {'per second':>10} {'CPU ms':>7}"
    print(f"\n{header}  ratio to its baseline, and its target")
    for name in rates:
        rate = _median(rates, name, "per_second")
        line = f"{name:38} {rate:10.1f}"
        if "cpu_ms" in rates[name][0]:
            cpu = _median(rates, name, "cpu_ms") + _median(rates, name, "database_cpu_ms")
            line += f" {cpu:7.2f}"
            if name in CPU_TARGETS:
                line += f" (<= {CPU_TARGETS[name]:.1f}{_mark(cpu <= CPU_TARGETS[name])})"
        for floor, target in TARGETS.get(name, {}).items():
            ratio = _ratio(rates, name, floor)
            line += f"  {ratio:.2f} of {floor} (>= {target:.2f}{_mark(ratio >= target)})"
        print(line)
    print()
    for name, (unit, direction, aim) in FIGURES.items():
        if name in figures:
            value = statistics.median(figures[name])
            met = value <= aim if direction == "<=" else value >= aim
            print(f"{name:38} {value:9.2f} {unit:12} ({direction} {aim:g}{_mark(met)})")


def is_compared_with_bare(name: str) -> bool:
    """Return whether the ratio of an operation to bare Flask has a target."""
    return BARE in TARGETS.get(name, {})


def _ratio(rates: Rates, name: str, floor: str) -> float:
    """Return the median of the ratios to what was measured in turn, or the ratio of the medians."""
    if floor == BARE:
        return statistics.median(row["per_second"] / row[BESIDE] for row in rates[name])
    return _median(rates, name, "per_second") / _median(rates, floor, "per_second")


def _median(rates: Rates, name: str, key: str) -> float:
    return statistics.median(row[key] for row in rates[name])


def _mark(met: bool) -> str:
    return "" if met else ", missed"
