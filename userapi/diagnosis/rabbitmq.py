"""RabbitMQ: whether it responds, and whether it accepts events."""

import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from typing import Protocol

from userapi.diagnosis.checks import CHECK_SECONDS, Check, Status
from userapi.diagnosis.findings import Finding, Level, warnings
from userapi.rabbitmq_nodes import RabbitmqNode, rabbitmq_nodes

AMQP_GREETING = b"AMQP\x00\x00\x09\x01"
# The name of the error → the fix.
_FIXES = {
    "AccessRefused": "Correct the user and password in RABBITMQ_URL, and allow the user"
    " to configure and write RABBITMQ_EXCHANGE.",
    "NotAllowed": "Create the virtual host of RABBITMQ_URL, and grant the user access to it.",
    "PreconditionFailed": "RABBITMQ_EXCHANGE exists with another type: delete it, or set"
    " another one.",
}


class Publisher(Protocol):
    """Publishes events. Passed in, so that this module does not load an AMQP library."""

    def obstacle(self) -> str | None:
        """Return the name of the error that prevents publishing now, or None."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def check(url: str) -> Check:
    """Send the AMQP greeting to each node. RabbitMQ is up if one of them replies.

    An open port alone does not count as up. Raises OSError if no node can be reached.
    """
    if not url:
        return Check(status=Status.DISABLED)
    nodes = rabbitmq_nodes(url)
    errors: list[BaseException] = []
    pool = ThreadPoolExecutor(len(nodes), thread_name_prefix="health-rabbitmq")
    try:
        for reply in as_completed([pool.submit(_replies, node) for node in nodes]):
            error = reply.exception()
            if error is not None:
                errors.append(error)
            elif reply.result():
                return Check(status=Status.UP)
    finally:
        pool.shutdown(wait=False)
    if errors:
        raise errors[0]
    return Check(status=Status.DOWN)


def _replies(node: RabbitmqNode) -> bool:
    """Return whether the node replies to the AMQP greeting. Raises OSError."""
    address = (node.host, node.port)
    with ExitStack() as connections:
        connection = connections.enter_context(
            socket.create_connection(address, timeout=CHECK_SECONDS)
        )
        if node.is_encrypted:
            context = ssl.create_default_context(cafile=node.ca_file)
            connection = connections.enter_context(
                context.wrap_socket(connection, server_hostname=node.host)
            )
        connection.sendall(AMQP_GREETING)
        return bool(connection.recv(8))


def _node_findings(url: str) -> Iterator[Finding]:
    """Yield which of several nodes do not reply."""
    nodes = rabbitmq_nodes(url)
    silent = [str(node) for node in nodes if not _is_up(node)]
    yield from warnings(
        "rabbitmq",
        (
            silent,
            f"{len(silent)} of {len(nodes)} nodes do not answer: {', '.join(silent)}",
            "Start them, or correct RABBITMQ_URL.",
        ),
    )


def _is_up(node: RabbitmqNode) -> bool:
    try:
        return _replies(node)
    except OSError:
        return False


def findings(
    publisher: Publisher | None, url: str, *, exchange: str, kept_days: int
) -> Iterator[Finding]:
    """Yield whether RabbitMQ accepts events; None as the publisher means it is not configured.

    The publisher connects and declares the exchange, as that of the worker does.
    """
    if publisher is None:
        yield Finding(
            "rabbitmq", Level.OK, f"not configured: events stay in the outbox for {kept_days} days"
        )
        return
    obstacle = publisher.obstacle()
    publisher.close()
    if obstacle is None:
        yield Finding("rabbitmq", Level.OK, f"accepts events on {exchange}")
        yield from _node_findings(url)
        return
    fix = _FIXES.get(obstacle, "Start RabbitMQ, or correct RABBITMQ_URL.")
    yield Finding(
        "rabbitmq",
        Level.FAULT,
        f"accepts no events ({obstacle})",
        f"{fix} No event is lost meanwhile.",
    )
