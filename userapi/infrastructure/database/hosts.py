"""Connecting to one of several hosts: the host that was reached last is tried first.

libpq tries the hosts of a URL in their order and waits for each one that hangs. Without this, every
new connection would wait for it again.
"""

from typing import Any

import psycopg2
from psycopg2.extensions import parse_dsn

_DEFAULT_PORT = "5432"
# libpq reads one value of each for each host.
_LISTS = ("host", "hostaddr", "port")

# A host as libpq describes it: its name, its address, and its port.
Host = tuple[str, ...]

# The hosts of a URL → the one that the newest connection reached, in this process.
_reached: dict[tuple[Host, ...], Host | None] = {}


def connect(database_url: str, **arguments: Any) -> Any:
    """Return a connection to PostgreSQL; `arguments` override those of the URL.

    Raises psycopg2.Error.
    """
    parameters = parse_dsn(database_url.replace("+psycopg2", "", 1))
    hosts = _hosts(parameters)
    if len(hosts) < 2:
        return psycopg2.connect(**(parameters | arguments))
    reached = _reached.get(hosts)
    ordered = sorted(hosts, key=lambda host: host != reached)
    lists = zip(_LISTS, zip(*ordered, strict=True), strict=True)
    parameters |= {name: ",".join(values) for name, values in lists if name in parameters}
    connection = psycopg2.connect(**(parameters | arguments))
    _reached[hosts] = _host_of(connection, hosts)
    return connection


def names_several_hosts(database_url: str) -> bool:
    """Return whether a URL of PostgreSQL names more than one host."""
    return len(_hosts(parse_dsn(database_url.replace("+psycopg2", "", 1)))) > 1


def _hosts(parameters: dict[str, str]) -> tuple[Host, ...]:
    """Return the hosts in their order; one port applies to all hosts."""
    names, addresses, ports = (parameters.get(name, "").split(",") for name in _LISTS)
    count = max(len(names), len(addresses))
    columns = (
        values * count if len(values) == 1 else values
        for values in (names, addresses, [port or _DEFAULT_PORT for port in ports])
    )
    return tuple(zip(*columns, strict=True))


def _host_of(connection: Any, hosts: tuple[Host, ...]) -> Host | None:
    """Return which of the hosts a connection has reached.

    libpq reports the name of a host, or its address if it has no name.
    """
    reached = (connection.info.host, str(connection.info.port))
    return next((host for host in hosts if (host[0] or host[1], host[2]) == reached), None)
