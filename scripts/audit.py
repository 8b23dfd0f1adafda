"""Checks pinned libraries for known vulnerabilities: `python scripts/audit.py REQUIREMENTS…`.

It runs pip-audit with the advisories of PyPI, or else of OSV. A source is used only if it finds the
vulnerability of a library that is known to have one, because a mirror without advisories reports
nothing for any library. Exits with 1 for a finding and for a library that could not be checked. If
no source can be reached, it reports that nothing was checked and exits with 0.
"""

import json
import os
import re
import subprocess  # nosec B404
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from packaging.utils import canonicalize_name

PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#]+)")
# Has a known vulnerability (CVE-2019-10906).
CANARY = "jinja2==2.10"
OSV = "https://api.osv.dev/v1/query"
TIMEOUT_SECONDS = 900


@dataclass(slots=True)
class Report:
    """The findings of a source about the pins."""

    weak: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


def pins_in(path: Path) -> list[str]:
    """Return the pinned libraries of a file."""
    found = (PIN.match(line) for line in path.read_text("utf-8").splitlines())
    return [f"{canonicalize_name(pin[1])}=={pin[2]}" for pin in found if pin]


def sources() -> dict[str, list[str]]:
    """Return the options of pip-audit for each source of advisories, the first choice first."""
    own = os.environ.get("AUDIT_OSV_URL")
    if own:
        return {own: ["--vulnerability-service", "osv", "--osv-url", own]}
    return {"PyPI": [], OSV: ["--vulnerability-service", "osv"]}


def ask(options: list[str], pins: list[str]) -> Report | None:
    """Return the findings of a source, or None if it does not respond."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"{pin}\n" for pin in pins))
        file.flush()
        try:
            run = subprocess.run(  # nosec B603
                [sys.executable, "-m", "pip_audit", "--requirement", file.name]
                + ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
                + ["--timeout", "10", *options],
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
            dependencies = json.loads(run.stdout)["dependencies"]
        except (subprocess.TimeoutExpired, json.JSONDecodeError):
            return None
    report = Report()
    for found in dependencies:
        if "skip_reason" in found:
            report.unchecked.append(found["skip_reason"])
        for weakness in found.get("vulns", ()):
            names = ", ".join([weakness["id"], *weakness["aliases"]])
            fixed = ", ".join(weakness["fix_versions"]) or "no version"
            report.weak.append(f"{found['name']}=={found['version']}: {names} (fixed in {fixed})")
    return report


def working_source() -> tuple[str, list[str]] | None:
    """Return the first source that finds the known vulnerability."""
    for name, options in sources().items():
        report = ask(options, [CANARY])
        if report is not None and report.weak:
            return name, options
    return None


def main(paths: list[str]) -> int:
    """Print every finding; return the exit code."""
    pins = sorted({pin for path in paths for pin in pins_in(Path(path))})
    if not pins:
        print("audit: no pins to check", file=sys.stderr)
        return 2
    source = working_source()
    if source is None:
        print(
            f"audit: NOTHING WAS CHECKED. No source of advisories can be reached from here, or"
            f" none reports the vulnerability of {CANARY}: {', '.join(sources())}. Run `make audit`"
            " where one can be reached."
        )
        return 0
    name, options = source
    report = ask(options, pins)
    if report is None:
        print(f"audit: {name} does not respond", file=sys.stderr)
        return 1
    for line in (*report.weak, *report.unchecked):
        print(line)
    print(
        f"audit: {len(pins)} libraries against {name}: {len(report.weak)} known vulnerabilities,"
        f" {len(report.unchecked)} libraries not checked"
    )
    return 1 if report.weak or report.unchecked else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
