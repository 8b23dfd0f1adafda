"""Connecting to one of several hosts: the host that was reached last is tried first.

libpq tries the hosts of a URL in their order and waits for each one that hangs. Without this, every
new connection would wait for it again.
"""

from typing import Any

import psycopg2
from psycopg2.extensions import parse_dsn

_DEFAULT_PORT = "5432"

Host = tuple[str, str]

# The hosts of a URL → the one that the newest connection reached, in this process.
_reached: dict[tuple[Host, ...], Host] = {}


def connect(database_url: str, **arguments: Any) -> Any:
    """Return a connection to PostgreSQL; `arguments` override those of the URL.

    Raises psycopg2.Error.
    """
    parameters = parse_dsn(database_url.replace("+psycopg2", "", 1))
    hosts = _hosts(parameters)
    if len(hosts) < 2:
        return psycopg2.connect(**(parameters | arguments))
    reached = _reached.get(hosts)
    names, ports = zip(*sorted(hosts, key=lambda host: host != reached), strict=True)
    parameters |= {"host": ",".join(names), "port": ",".join(ports)}
    connection = psycopg2.connect(**(parameters | arguments))
    _reached[hosts] = (connection.info.host, str(connection.info.port))
    return connection


def names_several_hosts(database_url: str) -> bool:
    """Return whether a URL of PostgreSQL names more than one host."""
    return len(_hosts(parse_dsn(database_url.replace("+psycopg2", "", 1)))) > 1


def _hosts(parameters: dict[str, str]) -> tuple[Host, ...]:
    """Return the hosts with their ports; one port applies to all hosts."""
    names = parameters.get("host", "").split(",")
    ports = parameters.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(names)
    return tuple((name, port or _DEFAULT_PORT) for name, port in zip(names, ports, strict=True))
