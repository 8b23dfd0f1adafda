"""The limits in docs/availability.md: tests read them from there, and store what they measure.

A document that promises more than the tests allow, or that names a measured value of another order
of magnitude, fails the test that measures it.
"""

import os
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass

from tests.support.gunicorn import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "availability.md"
ROW = re.compile(
    r"^\| (?P<id>G\d+) \| (?P<what>[^|]+) \| (?:≤ )?(?P<bound>[\d.]+)[^|]* \|"
    r" (?P<measured>[\d.]+)[^|]* \| `(?P<path>tests/[^:`]+)::(?P<test>\w+)` \|$",
    re.MULTILINE,
)
# Two measurements of one thing on a busy machine differ by less; shorter times are noise.
FACTOR = 10.0
NOISE = 0.5
SPINS = 5
# Prints the elapsed time for each second of processor time.
SPIN = """
import time
began, used = time.perf_counter(), time.process_time()
while time.process_time() - used < 0.1:
    pass
print((time.perf_counter() - began) / (time.process_time() - used))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarantee:
    """One row of the document: a bound, what was measured, and the test that holds it."""

    what: str
    bound: float
    measured: float
    path: str
    test: str

    def check(self, value: float, *, contention: float = 1.0) -> None:
        """Raise AssertionError if a measurement breaks the bound or contradicts the document.

        `contention` is how many times longer computations take than on an idle machine.
        """
        idle = value / contention
        assert idle <= self.bound, f"{self.what}: {value:.2f}, promised {self.bound}"
        documented = max(self.measured, NOISE)
        assert idle <= documented * FACTOR, (
            f"{self.what}: {value:.2f}, but docs/availability.md says {self.measured}"
        )


def guarantees() -> dict[str, list[Guarantee]]:
    """Return the rows of the document by the id of their guarantee."""
    found: dict[str, list[Guarantee]] = {}
    for row in ROW.finditer(DOCUMENT.read_text("utf-8")):
        found.setdefault(row["id"], []).append(
            Guarantee(
                what=row["what"],
                bound=float(row["bound"]),
                measured=float(row["measured"]),
                path=row["path"],
                test=row["test"],
            )
        )
    return found


def hold(guarantee: str, value: float, *, bound: float) -> None:
    """Check what the running test has measured against its bound, and against its row, if any.

    A test without a row measures what the document does not promise yet.
    """
    _, _, test = os.environ["PYTEST_CURRENT_TEST"].partition("::")
    name = re.split(r"[\[ ]", test)[0]
    factor = contention()
    print(f"{guarantee}: {value:.2f} (bound {bound}, contention {factor:.1f})")
    assert value / factor <= bound, f"{guarantee}: {value:.2f}, bound {bound} × {factor:.1f}"
    for row in guarantees().get(guarantee, ()):
        if row.test == name:
            assert row.bound == bound, f"docs/availability.md promises {row.bound}, not {bound}"
            row.check(value, contention=factor)


def contention() -> float:
    """Return how many times longer a computation takes now than on an idle machine.

    Failovers are work of many processes. Where other programs use the processors, all of it takes
    longer by about this factor, and a bound in seconds would measure the other programs.
    """
    ratios = []
    for _ in range(SPINS):
        spun = subprocess.run(
            [sys.executable, "-I", "-S", "-c", SPIN], capture_output=True, text=True, check=True
        )
        ratios.append(float(spun.stdout))
    return max(1.0, statistics.median(ratios))
