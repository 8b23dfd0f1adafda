"""Checks at the start, before anything else, that the address in BIND is free."""

import errno
import os
import re
import socket
import time

from userapi.settings import SettingsError

RETRY_SECONDS = 0.1
TCP_ADDRESS = re.compile(r"(?P<host>.*):(?P<port>[0-9]{1,5})")


def require_free(bind: str, *, within_seconds: float = 0.0) -> None:
    """Raise SettingsError if a TCP address is in use. Other addresses are not checked."""
    address = TCP_ADDRESS.fullmatch(bind)
    if address is None or bind.startswith("unix:"):
        return
    deadline = time.monotonic() + within_seconds
    while _is_in_use(address["host"].strip("[]"), int(address["port"])):
        if time.monotonic() >= deadline:
            other = f"{address['host']}:{int(address['port']) % 65535 + 1}"
            raise SettingsError(
                [
                    f"BIND: {bind}: {os.strerror(errno.EADDRINUSE)}. Stop the other process, or"
                    f" choose another address, such as BIND={other}"
                ]
            )
        time.sleep(RETRY_SECONDS)


def _is_in_use(host: str, port: int) -> bool:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            candidate.bind(address)
    except OSError as exc:
        return exc.errno == errno.EADDRINUSE
    return False
