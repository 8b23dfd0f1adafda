"""Handlers that write log lines, and drop a line that cannot be written."""

import logging
import logging.handlers
import sys
import time
from pathlib import Path
from typing import Any

from userapi.private_files import make_file

# How often to check whether the log file was moved.
MOVED_FILE_SECONDS = 0.5


class LineHandler(logging.StreamHandler[Any]):
    """A handler that drops lines it cannot write: a full disk must not stop the service.

    It also writes lines that no record of the standard library was made for.
    """

    def write(self, line: str) -> None:
        """Write a rendered line."""
        self.acquire()
        try:
            self.prepare_stream()
            self.stream.write(line + self.terminator)
            self.stream.flush()
        except (OSError, ValueError):
            return  # The disk is full, or the process is ending and the stream is closed.
        finally:
            self.release()

    def prepare_stream(self) -> None:
        """Prepare the stream for another line. Raises OSError."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - name of the base
        """Drop the line."""


class StandardOutputHandler(LineHandler):
    """The same for the standard output."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)


class FileHandler(LineHandler, logging.handlers.WatchedFileHandler):
    """The same for a file, which is reopened after it was moved."""

    _next_check = 0.0

    def reopenIfNeeded(self) -> None:  # noqa: N802 - name of the base
        """Check for a moved file every half second instead of for every line."""
        now = time.monotonic()
        if now >= self._next_check:
            self._next_check = now + MOVED_FILE_SECONDS
            super().reopenIfNeeded()

    def prepare_stream(self) -> None:
        """Open the file if it was moved, or could not be opened for the line before."""
        self.reopenIfNeeded()
        if self.stream is None:
            self.stream = self._open()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, or drop it if the file cannot be reopened."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)


class PrivateFileHandler(FileHandler):
    """The same for a file that only its owner can read, also after it was moved."""

    def __init__(self, path: Path, *, encoding: str) -> None:
        make_file(path)
        super().__init__(path, encoding=encoding)

    def reopenIfNeeded(self) -> None:  # noqa: N802 - name of the base
        """Create the file again if it was moved."""
        if time.monotonic() >= self._next_check:
            make_file(Path(self.baseFilename))
        super().reopenIfNeeded()
