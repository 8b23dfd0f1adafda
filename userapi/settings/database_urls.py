"""Parsers of the URLs of databases. libpq alone reads a URL of PostgreSQL, here and later."""

import re
from collections import Counter
from ipaddress import IPv6Address
from urllib.parse import parse_qsl

import psycopg2
from psycopg2.extensions import parse_dsn

_POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg2")


def database_url(raw: str) -> str:
    """Parse the URL of a PostgreSQL database or of a SQLite file."""
    scheme, _, rest = raw.partition("://")
    if scheme == "sqlite":
        if rest.removeprefix("/") in {"", ":memory:"} or not rest.startswith("/"):
            raise ValueError("must be sqlite:/// with the path of a file, not :memory:")
        return raw
    if scheme not in _POSTGRESQL:
        raise ValueError("must be a URL that begins with postgresql:// or sqlite://")
    return postgresql_url(raw)


def postgresql_url(raw: str) -> str:
    """Parse the URL of a PostgreSQL database, with one host or several.

    With several, connections use the one that accepts changes, unless the URL says otherwise.
    """
    scheme, _, rest = raw.partition("://")
    if scheme not in _POSTGRESQL:
        raise ValueError("must be a URL that begins with postgresql://")
    try:
        # An unknown option would make each request fail.
        parameters = parse_dsn(f"postgresql://{rest}")
    except psycopg2.Error as exc:
        raise ValueError("must be a URL such as postgresql://user:password@host:5432/name") from exc
    repeated = _repeated_parameter(rest)
    if repeated:
        # libpq uses the last one, SQLAlchemy the first or all.
        raise ValueError(f"must have {repeated}= once; separate several values by commas")
    hosts = parameters.get("host", parameters.get("hostaddr", "")).split(",")
    if any(_has_port(host) for host in hosts):
        raise ValueError("must have ports in port=, not in host=")
    if not _matches_names(parameters):
        raise ValueError("must have an address in hostaddr= for each name in host=")
    ports = parameters.get("port", "").split(",")
    if len(ports) not in {1, len(hosts)} or not all(map(_is_port, ports)):
        raise ValueError("must have ports from 1 to 65535, one for each host or one for all")
    if len(hosts) == 1 or "target_session_attrs" in parameters:
        return raw
    return f"{raw}{'&' if '?' in rest else '?'}target_session_attrs=read-write"


def _repeated_parameter(rest: str) -> str | None:
    """Return a parameter that the query of a URL contains twice."""
    parts = re.fullmatch(r"(?:[^@/]*@)?[^?]*\??(.*)", rest, re.DOTALL)
    pairs = parse_qsl(parts[1], keep_blank_values=True) if parts else []
    counts = Counter(name for name, _ in pairs)
    return next((name for name, count in counts.items() if count > 1), None)


def _matches_names(parameters: dict[str, str]) -> bool:
    """Return whether libpq can assign the addresses of the hosts to their names."""
    if "host" not in parameters or "hostaddr" not in parameters:
        return True
    return parameters["host"].count(",") == parameters["hostaddr"].count(",")


def _has_port(host: str) -> bool:
    if ":" not in host or host.startswith(("/", "@")):
        return False
    try:
        IPv6Address(host)
    except ValueError:
        return True
    return False


def _is_port(port: str) -> bool:
    return not port or (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535)
