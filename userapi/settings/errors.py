"""The error that stops the start, and how a process ends with it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class SettingsError(Exception):
    """The environment is not a valid configuration; `problems` has one line for each fault."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@contextmanager
def faults_end_the_process() -> Iterator[None]:
    """End the process with exit code 1 and one line for each fault, without a traceback."""
    try:
        yield
    except SettingsError as exc:
        for problem in exc.problems:
            print(f"userapi: {problem}", file=sys.stderr)
        sys.exit(1)
