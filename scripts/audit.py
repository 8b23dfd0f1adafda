"""Looks for pinned libraries with known weaknesses: `python scripts/audit.py REQUIREMENTS…`.

PyPI is asked about every pin, and where it cannot be reached, what it said until 2021, which the
package safety-db carries: better than nothing, and said. Exits with 1 for a finding.
"""

import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import distribution
from functools import cache
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

PYPI = os.environ.get("AUDIT_URL", "https://pypi.org/pypi")
TIMEOUT_SECONDS = 10
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#]+)")


@dataclass(frozen=True, slots=True)
class Pin:
    """One line of a requirements file."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


def pins_in(path: Path) -> list[Pin]:
    """Return the pinned libraries of a file."""
    found = (PIN.match(line) for line in path.read_text("utf-8").splitlines())
    return [Pin(canonicalize_name(pin[1]), pin[2]) for pin in found if pin]


def known_to_pypi(pin: Pin) -> list[str]:
    """Return the weaknesses that PyPI knows of. Raises OSError where it cannot be asked."""
    url = f"{PYPI}/{pin.name}/{pin.version}/json"
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:  # nosec B310
        weaknesses = json.load(answer)["vulnerabilities"]
    return [
        f"{', '.join([weakness['id'], *weakness['aliases']])}"
        f" (mended in {', '.join(weakness['fixed_in']) or 'no version'})"
        for weakness in weaknesses
        if not weakness.get("withdrawn")
    ]


def known_until_2021(pin: Pin) -> Iterator[str]:
    """Yield the weaknesses that safety-db knows of."""
    for weakness in _database_of_2021().get(pin.name, []):
        if any(SpecifierSet(spec).contains(pin.version) for spec in weakness["specs"]):
            yield f"{weakness['cve'] or weakness['id']} (in {weakness['v']})"


@cache
def _database_of_2021() -> dict[str, Any]:
    # Read as a file: the package itself cannot be imported.
    text = distribution("safety-db").read_text("../safety_db/insecure_full.json")
    return dict(json.loads(text or "{}"))


def audit(pins: list[Pin]) -> dict[Pin, list[str]]:
    """Return what is known of each pin."""
    try:
        known_to_pypi(pins[0])
        with ThreadPoolExecutor(8) as pool:
            return dict(zip(pins, pool.map(known_to_pypi, pins), strict=True))
    except OSError as exc:
        print(f"audit: {PYPI} cannot be asked ({type(exc).__name__}): only what was known in 2021.")
        return {pin: list(known_until_2021(pin)) for pin in pins}


def main(paths: list[str]) -> int:
    """Print every finding; return the exit code."""
    pins = [pin for path in paths for pin in pins_in(Path(path))]
    if not pins:
        print("audit: no pins to look at", file=sys.stderr)
        return 2
    found = {pin: weaknesses for pin, weaknesses in audit(pins).items() if weaknesses}
    for pin, weaknesses in found.items():
        print(f"{pin}: {'; '.join(weaknesses)}")
    print(f"audit: {len(pins)} libraries, {len(found)} with known weaknesses")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
