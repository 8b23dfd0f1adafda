"""What processes hold: memory and open files, as Linux reports them."""

from pathlib import Path


def proportional_mib(pid: int) -> float:
    """Return the memory of a process in MiB: its own, and its share of what several share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError("smaps_rollup has no Pss")


def open_files(pid: int) -> int:
    """Return the number of open files and sockets of a process."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
