"""python -m tests.chaos: run the proof, print its figures, fail on any loss."""

import argparse
import shutil
import sys

from tests.chaos.proof import Chaos, Plan
from tests.support.guardian import guardian
from tests.support.servers import new_run_directory


def main() -> int:
    """Run the proof as often as wanted."""
    usual = Plan()
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--users", type=int, default=usual.users)
    parser.add_argument("--threads", type=int, default=usual.threads)
    parser.add_argument("--seconds", type=float, default=usual.seconds)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    plan = Plan(users=arguments.users, threads=arguments.threads, seconds=arguments.seconds)
    failed = 0
    for number in range(1, arguments.rounds + 1):
        directory = new_run_directory()
        try:
            figures = Chaos(directory, plan).run()
        finally:
            shutil.rmtree(directory, ignore_errors=True)
            guardian.keep(directory)
        print(f"Round {number} of {arguments.rounds}\n{figures}\n", flush=True)
        failed += bool(figures.faults)
    print("Nothing was lost." if not failed else f"{failed} rounds failed.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
