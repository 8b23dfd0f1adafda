"""Where tests keep what they discard: in memory, if there is enough of it."""

import shutil
from functools import cache
from pathlib import Path

MEMORY = Path("/dev/shm")  # nosec B108: folders in it get random names.
MIN_FREE_BYTES = 4 * 1024**3


@cache
def parent_of_temporary_folders() -> Path | None:
    """Return a folder in memory with enough space; None means the usual one.

    The service writes SQLite to the disk at each commit, which takes milliseconds there.
    """
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < MIN_FREE_BYTES:
        return None
    return MEMORY
