"""python -m tests.abuse: hostile traffic of every kind and honest users at once. Loopback only."""

import argparse
import shutil
import sys

from tests.abuse.trial import Plan, run_trial
from tests.support.guardian import guardian
from tests.support.servers import new_run_directory


def main() -> int:
    """Run the trial once; exit with 1 when it shows a fault."""
    usual = Plan()
    parser = argparse.ArgumentParser(prog="python -m tests.abuse")
    parser.add_argument("--minutes", type=float, default=usual.abused_seconds / 60)
    parser.add_argument("--alone-seconds", type=float, default=usual.alone_seconds)
    arguments = parser.parse_args()
    plan = Plan(alone_seconds=arguments.alone_seconds, abused_seconds=arguments.minutes * 60)
    directory = new_run_directory()
    guardian.remove(directory)
    try:
        report = run_trial(directory, plan)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        guardian.keep(directory)
    print(report)
    print("The service holds." if not report.faults else f"{len(report.faults)} faults.")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
