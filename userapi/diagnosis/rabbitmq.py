"""RabbitMQ: whether it responds, and whether it accepts events."""

import socket
import ssl
from collections.abc import Iterator
from typing import Protocol
from urllib.parse import urlsplit

from userapi.diagnosis.checks import CHECK_SECONDS, Check, Status
from userapi.diagnosis.findings import Finding, Level

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
    """Send the AMQP greeting and wait for a reply. An open port alone does not count as up.

    Raises OSError.
    """
    if not url:
        return Check(status=Status.DISABLED)
    parts = urlsplit(url)
    secure = parts.scheme == "amqps"
    address = (parts.hostname or "localhost", parts.port or (5671 if secure else 5672))
    with socket.create_connection(address, timeout=CHECK_SECONDS) as plain:
        connection = plain
        if secure:
            context = ssl.create_default_context()
            connection = context.wrap_socket(plain, server_hostname=address[0])
        connection.sendall(AMQP_GREETING)
        replied = connection.recv(8)
    return Check(status=Status.UP if replied else Status.DOWN)


def findings(publisher: Publisher | None, *, exchange: str, kept_days: int) -> Iterator[Finding]:
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
        return
    fix = _FIXES.get(obstacle, "Start RabbitMQ, or correct RABBITMQ_URL.")
    yield Finding(
        "rabbitmq",
        Level.FAULT,
        f"accepts no events ({obstacle})",
        f"{fix} No event is lost meanwhile.",
    )
