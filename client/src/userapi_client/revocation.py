"""When a verifier detects that a token was revoked."""

from dataclasses import dataclass, field
from typing import Literal

GapRule = Literal["ask", "refuse", "accept"]


@dataclass(frozen=True, slots=True)
class SignatureOnly:
    """A revoked token is accepted until it expires. No request is made."""


@dataclass(frozen=True, slots=True)
class Introspection:
    """The verifier queries the service about each token, at most once in `cache_seconds`."""

    cache_seconds: float = 5


@dataclass(frozen=True, slots=True)
class Events:
    """Revocations arrive as events from RabbitMQ, within about a second.

    `on_gap` sets what happens without a connection: `ask` queries the service about each token,
    `refuse` raises Unavailable, `accept` relies on the signature. Needs the extra `events`.
    """

    amqp_url: str = field(repr=False)
    exchange: str = field(default="user_events", kw_only=True)
    on_gap: GapRule = field(default="ask", kw_only=True)


Revocation = SignatureOnly | Introspection | Events
