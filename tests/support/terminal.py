"""A program on its own terminal, and the keyboard of its user."""

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.support.guardian import guardian
from tests.support.servers import end_process

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """A program whose input and output are a terminal; use it in a `with` statement."""

    def __init__(
        self, program: Sequence[str], *, directory: Path, environment: Mapping[str, str]
    ) -> None:
        self._program = list(program)
        self._directory = directory
        self._environment = {**environment, "TERM": "xterm-256color"}
        self.output = ""

    def __enter__(self) -> Self:
        self._own, theirs = pty.openpty()
        self._process = subprocess.Popen(
            self._program,
            cwd=self._directory,
            env=self._environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_start_on_terminal,
        )
        os.close(theirs)
        guardian.watch(self._process.pid, ended_by=signal.SIGKILL)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._own)  # Hangs up: programs that still run on it get SIGHUP.
        end_process(self._process, signal.SIGKILL)

    @property
    def text(self) -> str:
        """All that was shown so far, without colours."""
        return COLOUR.sub("", self.output).replace("\r\n", "\n")

    def press(self, keys: str) -> None:
        """Type something."""
        os.write(self._own, keys.encode())

    def wait_for(self, text: str, *, within_seconds: float = 60.0) -> None:
        """Wait until the terminal shows a text. Raises AssertionError."""
        self._read(lambda: text in self.text, within_seconds)
        assert text in self.text, self.text

    def wait_until_ended(self, *, within_seconds: float = 60.0) -> None:
        """Wait until nothing more comes. Raises AssertionError."""
        ended = self._read(lambda: False, within_seconds)
        assert ended, self.text

    def _read(self, is_enough: Callable[[], bool], within_seconds: float) -> bool:
        """Read until the condition holds or the program has ended; return whether it has ended."""
        deadline = time.monotonic() + within_seconds
        while time.monotonic() < deadline and not is_enough():
            readable, _, _ = select.select([self._own], [], [], 0.2)
            if not readable:
                continue
            try:
                piece = os.read(self._own, 65536)
            except OSError:  # The last process on the terminal is gone.
                return True
            if not piece:
                return True
            self.output += piece.decode("utf-8", "replace")
        return False


def _start_on_terminal() -> None:
    """Do what a shell does before it runs a program in the foreground."""
    # The terminal controls the session, so that Ctrl-C reaches all of its processes.
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # A test run in the background may ignore it, and its children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
