"""The relying party: the name and the domain that passkeys belong to (WebAuthn Level 3 §5.4.2).

It comes from the settings alone. A client can set Host, Origin and X-Forwarded headers.
"""

from dataclasses import dataclass

from userapi.settings.relying_party import host_of, is_within


@dataclass(frozen=True, slots=True, kw_only=True)
class RelyingParty:
    """The service that requests passkeys, and its pages.

    `id` is a domain; empty means that no passkey can be added or used. `origins` are the pages and
    apps whose responses are accepted, compared character for character.
    """

    id: str
    name: str
    origins: tuple[str, ...]

    @property
    def related_origins(self) -> list[str]:
        """Return the web origins outside the domain of the RP ID (WebAuthn Level 3 §5.11)."""
        if not self.id:
            return []
        # The origin of an app has no host; its platform has its own list of related apps.
        return [
            origin for origin in self.origins if host_of(origin) and not is_within(origin, self.id)
        ]
