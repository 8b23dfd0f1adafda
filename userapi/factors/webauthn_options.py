"""The options of WebAuthn ceremonies, as JSON for the browser, by the library `webauthn`.

This module and `webauthn_verification` import the library, which takes 15 MB and 0.3 seconds.
Import them inside the functions that need them.
"""

from collections.abc import Iterable
from typing import Any

from webauthn import generate_authentication_options, generate_registration_options
from webauthn.helpers import options_to_json_dict
from webauthn.helpers.structs import (
    AttestationConveyancePreference,
    AuthenticatorSelectionCriteria,
    AuthenticatorTransport,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from userapi.factors.credentials import KnownCredential
from userapi.factors.relying_party import RelyingParty
from userapi.factors.webauthn_verification import ALGORITHMS, TRANSPORTS

TIMEOUT_MILLISECONDS = 300_000


def creation_options(
    party: RelyingParty,
    *,
    challenge: bytes,
    user_handle: bytes,
    username: str,
    display_name: str,
    excluded: Iterable[KnownCredential],
) -> dict[str, Any]:
    """Return the JSON for `parseCreationOptionsFromJSON` (WebAuthn Level 3 §5.1.9)."""
    options = generate_registration_options(
        rp_id=party.id,
        rp_name=party.name,
        user_id=user_handle,
        user_name=username,
        user_display_name=display_name,
        challenge=challenge,
        timeout=TIMEOUT_MILLISECONDS,
        attestation=AttestationConveyancePreference.NONE,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED,
            user_verification=UserVerificationRequirement.REQUIRED,
        ),
        exclude_credentials=[_descriptor(credential) for credential in excluded],
        supported_pub_key_algs=ALGORITHMS,
    )
    return options_to_json_dict(options)


def request_options(
    party: RelyingParty, *, challenge: bytes, allowed: Iterable[KnownCredential]
) -> dict[str, Any]:
    """Return the JSON for `parseRequestOptionsFromJSON` (WebAuthn Level 3 §5.1.10)."""
    options = generate_authentication_options(
        rp_id=party.id,
        challenge=challenge,
        timeout=TIMEOUT_MILLISECONDS,
        allow_credentials=[_descriptor(credential) for credential in allowed],
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return options_to_json_dict(options)


def _descriptor(credential: KnownCredential) -> PublicKeyCredentialDescriptor:
    transports = [AuthenticatorTransport(t) for t in credential.transports if t in TRANSPORTS]
    return PublicKeyCredentialDescriptor(id=credential.credential_id, transports=transports)
