"""Free ports on the loopback interface that stay free."""

import os
import random
import socket
from collections import deque

# Below the range that the system gives to outgoing connections: a server that is stopped and
# started again on its port would otherwise find, now and then, a client sitting there.
LOWEST, HIGHEST = 20000, 32000
# A port is free until its server starts, which may be seconds after it was chosen.
RECENT = 500
_recent: deque[int] = deque(maxlen=RECENT)


def free_port() -> int:
    """Return a free port of 127.0.0.1: no recent one, and none of another worker's ports."""
    number, workers = _worker()
    while True:
        port = random.randrange(LOWEST + number, HIGHEST + 1, workers)
        if port in _recent:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
        _recent.append(port)
        return port


def _worker() -> tuple[int, int]:
    """Return the number of this worker of pytest-xdist from 0, and how many there are."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    name = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    # A worker that replaces a crashed one has a number of its own.
    return int(name.removeprefix("gw")) % workers, workers
