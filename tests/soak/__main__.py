"""python -m tests.soak: an hour of use, and the resources that grow. Loopback only."""

import argparse
import shutil
import sys

from tests.soak.trial import Plan, run_trial
from tests.support.guardian import guardian
from tests.support.servers import new_run_directory


def main() -> int:
    """Run the trial once; exit with 1 if something grows or fails."""
    usual = Plan()
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=usual.seconds / 60)
    arguments = parser.parse_args()
    directory = new_run_directory()
    guardian.remove(directory)
    try:
        report = run_trial(directory, Plan(seconds=arguments.minutes * 60))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        guardian.keep(directory)
    print(report)
    print("Nothing grows." if not report.faults else f"{len(report.faults)} faults.")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
