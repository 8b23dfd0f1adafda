"""Which servers are reached over a network, and whether their certificates are verified.

Without a verified certificate and name, anyone who controls the network can read and change
everything that is sent, including the password of the connection.
"""

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlsplit

from psycopg2.extensions import parse_dsn

from userapi.rabbitmq_nodes import rabbitmq_nodes
from userapi.settings.redis_urls import (
    is_cluster_url,
    is_sentinel_url,
    parse_cluster_url,
    parse_sentinel_url,
)

# As redis-py reads an option.
_FALSE = {"0", "F", "FALSE", "N", "NO"}


def unverified_connections(
    *, database_url: str, redis_url: str, rabbitmq_url: str
) -> Iterator[str]:
    """Yield the variables whose servers are reached over a network without verified TLS."""
    if is_postgresql(database_url) and is_over_network(database_url):
        if _parameters(database_url).get("sslmode") != "verify-full":
            yield "DATABASE_URL"
    if not all(map(_is_local, _redis_hosts(redis_url))) and not _verifies_redis(redis_url):
        yield "REDIS_URL"
    nodes = rabbitmq_nodes(rabbitmq_url) if rabbitmq_url else ()
    if not all(node.is_encrypted or _is_local(node.host) for node in nodes):
        yield "RABBITMQ_URL"


def is_postgresql(database_url: str) -> bool:
    """Return whether the URL is one of PostgreSQL."""
    return database_url.startswith("postgres")


def is_over_network(database_url: str) -> bool:
    """Return whether a PostgreSQL server of the URL is neither on this machine nor a socket."""
    parameters = _parameters(database_url)
    hosts = parameters.get("hostaddr") or parameters.get("host") or ""
    return not all(map(_is_local, hosts.split(",")))


def _parameters(database_url: str) -> dict[str, str]:
    return dict(parse_dsn(f"postgresql://{database_url.partition('://')[2]}"))


def _redis_hosts(url: str) -> list[str]:
    if is_cluster_url(url):
        return [host for host, _ in parse_cluster_url(url).nodes]
    if is_sentinel_url(url):
        return [host for host, _ in parse_sentinel_url(url).sentinels]
    return [urlsplit(url).hostname or ""]


def _verifies_redis(url: str) -> bool:
    options = dict(parse_qsl(url.partition("?")[2]))
    return (
        url.startswith("rediss")
        and options.get("ssl_cert_reqs", "required") == "required"
        and options.get("ssl_check_hostname", "true").upper() not in _FALSE
    )


def _is_local(host: str) -> bool:
    if not host or host == "localhost" or host.startswith(("/", "@")):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
