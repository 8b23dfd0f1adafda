"""What publishes events: a protocol, and an implementation in memory for tests.

A publisher reports for each message whether it was confirmed or rejected. Others have an unknown
result because the broker became unavailable; they may have arrived and are published again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An event in the form in which it is published."""

    id: str
    routing_key: str
    body: bytes


@dataclass(slots=True, kw_only=True)
class Receipt:
    """The results of messages, by their ids. `outage` names the error of an unavailable broker."""

    confirmed: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    outage: str | None = None


class Publisher(Protocol):
    """Publishes messages to a broker."""

    def publish(self, messages: Sequence[Message]) -> Receipt:
        """Publish in this order and wait for the confirms. The receipt contains errors."""
        ...

    def keep_alive(self) -> None:
        """Send a heartbeat if due; called every few seconds while there is nothing to publish."""
        ...

    def close(self) -> None:
        """Close the connection, if there is one."""
        ...


class MemoryPublisher:
    """Stores messages in a list. Tests can make it unavailable or make it reject messages."""

    def __init__(self) -> None:
        self.published: list[Message] = []
        self.refuses: Callable[[Message], bool] = lambda message: False
        self.is_away = False

    def publish(self, messages: Sequence[Message]) -> Receipt:
        """Store the messages that are not rejected."""
        receipt = Receipt()
        for message in messages:
            if self.is_away:
                receipt.outage = "away"
                break
            if self.refuses(message):
                receipt.refused.append(message.id)
                continue
            self.published.append(message)
            receipt.confirmed.append(message.id)
        return receipt

    def keep_alive(self) -> None:
        """Do nothing: there is no connection."""

    def close(self) -> None:
        """Do nothing: there is no connection."""
