"""A mail as it is sent."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A mail as it is sent. `language` is the language tag of its texts."""

    recipient: str
    language: str
    subject: str
    plain: str
    html: str
