"""How soon a verifier notices that a token was revoked."""

from dataclasses import dataclass, field
from typing import Literal

GapRule = Literal["ask", "refuse", "accept"]


@dataclass(frozen=True, slots=True)
class SignatureOnly:
    """Revocations are noticed when the token expires. No request is made."""


@dataclass(frozen=True, slots=True)
class Introspection:
    """The service is asked about each token, at most once in `cache_seconds`."""

    cache_seconds: float = 5


@dataclass(frozen=True, slots=True)
class Events:
    """Revocations arrive as events from RabbitMQ, within about a second.

    Without a connection, `on_gap` decides: `ask` the service about each token, `refuse` with
    Unavailable, or `accept` by the signature. Needs the extra `events`.
    """

    amqp_url: str = field(repr=False)
    exchange: str = field(default="user_events", kw_only=True)
    on_gap: GapRule = field(default="ask", kw_only=True)


Revocation = SignatureOnly | Introspection | Events
