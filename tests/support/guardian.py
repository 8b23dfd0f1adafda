"""Ends the processes of a test run when the run itself was killed.

Run as a script, this is a process of its own that reads a pipe. Only the test run holds the other
end, so the pipe closes however the run ends, SIGKILL too; whatever is then still watched is ended
and the run's directory removed. PR_SET_PDEATHSIG would do less: it follows the thread that
started a process, and the directory would stay.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

GRACE_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1


def family(pid: int) -> list[int]:
    """Return `pid` and all its descendants, parents first. Needs /proc.

    PostgreSQL gives each of its processes a session of its own: a process group is not enough.
    """
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The second field is the program's name in brackets, which may hold anything.
            parent = int(entry.read_text("utf-8", "replace").rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue  # It ended in the meantime.
        children.setdefault(parent, []).append(int(entry.parent.name))
    found = [pid]
    for member in found:
        found.extend(children.get(member, []))
    return found


def send(pids: Iterable[int], signal_number: int) -> None:
    """Send a signal to each process that is still there."""
    for pid in pids:
        try:
            os.kill(pid, signal_number)
        except (ProcessLookupError, PermissionError):
            continue


def freeze(pid: int) -> list[int]:
    """Stop `pid` and its descendants and return them; none of them can start another any more."""
    frozen: list[int] = []
    while new := [member for member in family(pid) if member not in frozen]:
        send(new, signal.SIGSTOP)
        frozen.extend(new)
    return frozen


def is_alive(pid: int) -> bool:
    """Return whether this process runs; a zombie does not."""
    try:
        state = (
            Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
        )
    except (OSError, IndexError):
        return False
    return state != "Z"


def end_with_parent() -> None:
    """Have the kernel end this process when its parent's main thread ends. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Guardian:
    """The test run's end of the pipe. Its process starts with the first thing to watch."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def watch(self, pid: int, *, ended_by: signal.Signals) -> None:
        """End this process by the given signal, at last by SIGKILL, if the run dies."""
        self._send(f"watch {pid} {int(ended_by)}")

    def release(self, pid: int) -> None:
        """Stop watching this process: it has ended."""
        self._send(f"release {pid}")

    def remove(self, directory: Path) -> None:
        """Remove this directory if the run dies."""
        self._send(f"remove {directory}")

    def keep(self, directory: Path) -> None:
        """Do not remove this directory any more."""
        self._send(f"keep {directory}")

    def _send(self, line: str) -> None:
        with self._lock:
            if self._process is None:
                # A session of its own: Ctrl-C in the terminal must not reach it.
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", __file__],
                    stdin=subprocess.PIPE,
                    start_new_session=True,
                    text=True,
                )
            assert self._process.stdin is not None
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()


def main() -> None:
    """Read lines until the pipe closes, then end the processes that are still watched."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    watched: dict[int, int] = {}
    directories: set[str] = set()
    for line in sys.stdin:
        verb, _, rest = line.rstrip("\n").partition(" ")
        if verb == "watch":
            pid, signal_number = rest.split()
            watched[int(pid)] = int(signal_number)
        elif verb == "release":
            watched.pop(int(rest), None)
        elif verb == "remove":
            directories.add(rest)
        elif verb == "keep":
            directories.discard(rest)
    _end(watched)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def _end(watched: dict[int, int]) -> None:
    families: dict[int, list[int]] = {}
    for pid, signal_number in watched.items():
        if signal_number == signal.SIGKILL:
            families[pid] = freeze(pid)
            send(families[pid], signal.SIGKILL)
        else:
            families[pid] = family(pid)
            send([pid], signal_number)
            send(families[pid], signal.SIGCONT)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and any(is_alive(pid) for pid in watched):
        time.sleep(0.05)
    for members in families.values():
        send(members, signal.SIGKILL)


guardian = Guardian()

if __name__ == "__main__":
    main()
