"""Passkeys: the RP ID and the origins that they work with, and passkeys of another RP ID."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from userapi.diagnosis.findings import Finding, Level, warnings
from userapi.factors.foreign_passkeys import count_foreign_passkeys
from userapi.factors.relying_party import RelyingParty
from userapi.infrastructure.database import reading
from userapi.settings import Settings
from userapi.settings.relying_party import origin_of


def findings(settings: Settings, party: RelyingParty) -> Iterator[Finding]:
    """Yield where passkeys work, and where the settings prevent it."""
    if not party.id:
        yield from warnings(
            "passkeys",
            (
                settings.feature_passkeys,
                f"nobody can add one: {settings.public_base_url} is neither https nor localhost",
                "Set PUBLIC_BASE_URL to an https address with a host name, or FEATURE_PASSKEYS"
                " to false.",
            ),
        )
        return
    yield Finding(
        "passkeys", Level.OK, f"they belong to {party.id} and work at {', '.join(party.origins)}"
    )
    host = urlsplit(settings.public_base_url).hostname
    own = origin_of(settings.public_base_url)
    related = party.related_origins
    yield from warnings(
        "passkeys",
        (
            own not in party.origins,
            f"they do not work in the console: WEBAUTHN_ORIGINS lacks {own}",
            "Add it to WEBAUTHN_ORIGINS.",
        ),
        (
            related and host != party.id,
            f"browsers read https://{party.id}/.well-known/webauthn before they work at"
            f" {', '.join(related)}",
            "Forward that path to the service.",
        ),
    )


def foreign_findings(party: RelyingParty) -> Iterator[Finding]:
    """Yield whether the database has passkeys of another RP ID."""
    with reading() as connection:
        count = count_foreign_passkeys(connection, party.id)
    yield from warnings(
        "passkeys",
        (
            count,
            f"{count} belong to another RP ID than {party.id or 'that of the settings'}: no browser"
            " offers them",
            "Set WEBAUTHN_RP_ID to the former domain, or let their users add new ones.",
        ),
    )
