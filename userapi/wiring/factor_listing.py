"""The list of the second factors of a user."""

from dataclasses import dataclass

from userapi.factors.listing import FactorList
from userapi.settings import Settings
from userapi.wiring.directory import DirectoryServices
from userapi.wiring.secrets import SecretServices


@dataclass(frozen=True, kw_only=True)
class FactorListServices:
    """The services that list second factors."""

    factor_list: FactorList


def build_factor_listing(
    settings: Settings, secrets: SecretServices, directory: DirectoryServices
) -> FactorListServices:
    """Build the services that list second factors."""
    return FactorListServices(
        factor_list=FactorList(
            roles=directory.roles,
            enforcement=directory.mfa_enforcement,
            readable_key_ids=secrets.totp_secrets.readable_key_ids,
            rp_id=settings.webauthn_rp_id,
            adds_passkeys=settings.adds_passkeys,
        )
    )
