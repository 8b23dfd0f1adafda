"""The relying party of passkeys."""

from userapi.factors.relying_party import RelyingParty
from userapi.settings import Settings


def build_relying_party(settings: Settings) -> RelyingParty:
    """Return the name and the domain that passkeys belong to."""
    return RelyingParty(
        id=settings.webauthn_rp_id,
        name=settings.webauthn_rp_name,
        origins=settings.webauthn_origins,
    )
