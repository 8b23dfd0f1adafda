"""The nodes of RabbitMQ that RABBITMQ_URL names. Everything that connects uses these.

`amqp://user:password@n1:5672,n2:5672/vhost` and `amqp://…@n1/vhost;amqp://…@n2/vhost` name two.
"""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

_URL = re.compile(
    r"(?P<scheme>amqps?)://((?P<account>[^/?#]*)@)?(?P<addresses>[^/?#@]*)"
    r"(?P<path>/[^?#]*)?(\?(?P<query>[^#]*))?",
    re.ASCII | re.IGNORECASE,
)
_PORTS = {"amqp": 5672, "amqps": 5671}
CA_OPTION = "ssl_ca_certs"


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitmqNode:
    """A node. `url` names only this node, without options. Without a CA file the system's apply."""

    url: str = field(repr=False)
    host: str
    port: int
    is_encrypted: bool
    ca_file: str | None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def rabbitmq_nodes(url: str) -> tuple[RabbitmqNode, ...]:
    """Return the nodes in the order of the URL. Raises ValueError."""
    return tuple(node for part in url.split(";") for node in _nodes(part))


def _nodes(url: str) -> list[RabbitmqNode]:
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError("must be a URL that begins with amqp:// or amqps://")
    scheme = found["scheme"].lower()
    options = dict(parse_qsl(found["query"] or "", keep_blank_values=True))
    ca_file = options.pop(CA_OPTION, None)
    if options or (ca_file is not None and scheme == "amqp"):
        raise ValueError(f"must have no option after ? except {CA_OPTION} with amqps://")
    account = f"{found['account']}@" if found["account"] is not None else ""
    nodes = []
    for address in (found["addresses"] or "localhost").split(","):
        try:
            parts = urlsplit(f"{scheme}://{address}")
            host, port = parts.hostname, parts.port or _PORTS[scheme]
        except ValueError:
            host, port = None, 0
        if host is None:
            raise ValueError("must have addresses such as h1:5672,h2:5672 between amqp:// and /")
        nodes.append(
            RabbitmqNode(
                url=f"{scheme}://{account}{address}{found['path'] or ''}",
                host=host,
                port=port,
                is_encrypted=scheme == "amqps",
                ca_file=ca_file,
            )
        )
    return nodes
