"""Free ports on the loopback interface that stay free."""

import random
import socket

# Below the range that the system gives to outgoing connections: a server that is stopped and
# started again on its port would otherwise find, now and then, a client sitting there.
LOWEST, HIGHEST = 20000, 32000


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    while True:
        port = random.randint(LOWEST, HIGHEST)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
