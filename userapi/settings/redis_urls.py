"""Parsers of the URLs of Redis: a server, the Sentinels of a master, or nodes of a Cluster."""

import re
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from userapi.settings.parsers import is_host, url

SERVER_PORT = 6379
SENTINEL_PORT = 26379
_SENTINEL = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
_CLUSTER = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
_PATH = re.compile(r"/([A-Za-z0-9._-]{1,100})(/[0-9]{0,5})?", re.ASCII)
_EXAMPLE = "redis+sentinel://:password@host1:26379,host2:26379,host3:26379/mymaster/0"
_CLUSTER_EXAMPLE = "redis+cluster://:password@host1:6379,host2:6379,host3:6379"

Address = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelUrl:
    """The parts of a URL such as redis+sentinel://:password@host1:26379,host2:26379/mymaster/0.

    `server_options` are for the master, `sentinel_options` for the Sentinels.
    """

    sentinels: tuple[Address, ...]
    master: str
    uses_tls: bool
    server_options: dict[str, Any] = field(repr=False)
    sentinel_options: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterUrl:
    """The parts of a URL such as redis+cluster://:password@host1:6379,host2:6379.

    Any of the nodes can name the others.
    """

    nodes: tuple[Address, ...]
    _scheme: str
    _credentials: str = field(repr=False)
    _query: str = field(repr=False)

    def server_url(self, address: Address) -> str:
        """Return the URL of one server of the Cluster."""
        host, port = address
        host = f"[{host}]" if ":" in host else host
        return f"{self._scheme}://{self._credentials}{host}:{port}/0{self._query}"


def redis_url(raw: str) -> str:
    """Parse the URL of a Redis server, of Sentinels, or of a Cluster."""
    scheme = raw.partition("://")[0]
    if scheme in _CLUSTER:
        return _checked_cluster_url(raw)
    if scheme in _SENTINEL:
        return _checked_sentinel_url(raw)
    parts = urlsplit(url("redis", "rediss", "unix", *_SENTINEL, *_CLUSTER)(raw))
    _require_known_options(raw, "redis://:password@host:6379/0")
    if parts.scheme != "unix" and not re.fullmatch(r"/?|/[0-9]{1,5}", parts.path):
        raise ValueError("must have the number of a database as its path, such as redis://host/0")
    return raw


def is_sentinel_url(redis_url: str) -> bool:
    """Return whether the URL names Sentinels."""
    return redis_url.partition("://")[0] in _SENTINEL


def is_cluster_url(redis_url: str) -> bool:
    """Return whether the URL names nodes of a Redis Cluster."""
    return redis_url.partition("://")[0] in _CLUSTER


def with_sentinel_password(redis_url: str, password: str) -> str:
    """Return the URL with the password of the Sentinels, which is a separate variable."""
    separator = "&" if "?" in redis_url else "?"
    return f"{redis_url}{separator}sentinel_password={quote(password, safe='')}"


def parse_sentinel_url(redis_url: str) -> SentinelUrl:
    """Return the parts of a URL that names Sentinels. Raises ValueError if it is invalid."""
    # Imported here because it takes 0.1 s, and most commands do not connect to Redis.
    from redis.connection import parse_url

    server_url, addresses, master, sentinel_options = _split(redis_url)
    server_options = cast(Any, parse_url)(server_url)
    for name in ("host", "port", "connection_class"):
        server_options.pop(name, None)
    tls_options = {name: each for name, each in server_options.items() if name.startswith("ssl_")}
    return SentinelUrl(
        sentinels=addresses,
        master=master,
        uses_tls=server_url.startswith("rediss"),
        server_options=server_options,
        sentinel_options=tls_options | sentinel_options,
    )


def parse_cluster_url(redis_url: str) -> ClusterUrl:
    """Return the parts of a URL that names nodes of a Cluster. Raises ValueError if invalid."""
    parts = urlsplit(redis_url)
    if parts.path.strip("/"):
        raise ValueError("has the number of a database")
    credentials, separator, hosts = parts.netloc.rpartition("@")
    return ClusterUrl(
        nodes=tuple(_address(host, SERVER_PORT) for host in hosts.split(",")),
        _scheme=_CLUSTER[parts.scheme],
        _credentials=credentials + separator,
        _query=f"?{parts.query}" if parts.query else "",
    )


def _checked_cluster_url(raw: str) -> str:
    try:
        parts = parse_cluster_url(raw)
        options = dict(parse_qsl(urlsplit(raw).query, keep_blank_values=True))
    except ValueError as exc:
        raise ValueError(
            f"must be a URL such as {_CLUSTER_EXAMPLE}, without the number of a database"
        ) from exc
    if "db" in options:
        raise ValueError("must not have db: a Redis Cluster has one database")
    _require_known_options(parts.server_url(parts.nodes[0]), _CLUSTER_EXAMPLE)
    return raw


def _checked_sentinel_url(raw: str) -> str:
    try:
        server_url, _, _, sentinel_options = _split(raw)
    except ValueError as exc:
        raise ValueError(f"must be a URL such as {_EXAMPLE}") from exc
    if "password" in sentinel_options:
        raise ValueError("must not have sentinel_password; set REDIS_SENTINEL_PASSWORD")
    _require_known_options(server_url, _EXAMPLE)
    return raw


def _split(redis_url: str) -> tuple[str, tuple[Address, ...], str, dict[str, str]]:
    """Return the URL of a server with the same options, and what concerns the Sentinels."""
    parts = urlsplit(redis_url)
    path = _PATH.fullmatch(parts.path)
    if path is None:
        raise ValueError("has no name of a master")
    credentials, separator, hosts = parts.netloc.rpartition("@")
    master, database = path.groups()
    options, sentinel_options = [], {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in {"sentinel_username", "sentinel_password"}:
            sentinel_options[name.removeprefix("sentinel_")] = value
        else:
            options.append((name, value))
    server = f"{_SENTINEL[parts.scheme]}://{credentials}{separator}localhost{database or ''}"
    addresses = tuple(_address(host, SENTINEL_PORT) for host in hosts.split(","))
    return f"{server}?{urlencode(options)}", addresses, master, sentinel_options


def _address(text: str, default_port: int) -> Address:
    parts = re.fullmatch(r"(\[[^]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?", text)
    if parts is None or not is_host(parts[1]):
        raise ValueError("has an invalid host")
    port = int(parts[2] or default_port)
    if not 1 <= port <= 65535:
        raise ValueError("has an invalid port")
    return parts[1].strip("[]"), port


def _require_known_options(server_url: str, example: str) -> None:
    if not urlsplit(server_url).query:
        return
    # Imported here because it takes 0.1 s, and most commands do not connect to Redis.
    from redis import ConnectionPool

    try:
        # Creates a connection without connecting: an unknown option would make each request fail.
        ConnectionPool.from_url(server_url).make_connection()
    except (TypeError, ValueError) as exc:
        raise ValueError(f"must be a URL such as {example}") from exc
