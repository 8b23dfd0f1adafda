"""The verification of WebAuthn responses, by the library `webauthn`.

This module and `webauthn_options` import the library, which takes 15 MB and 0.3 seconds. Import
them inside the functions that need them. The library verifies types, challenges, origins, RP IDs,
user presence and verification, counters and signatures. `passkey_assertion` and
`passkey_registration` check what it leaves out.
"""

from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from webauthn import verify_authentication_response, verify_registration_response
from webauthn.helpers import (
    decode_credential_public_key,
    decoded_public_key_to_cryptography,
    encode_cbor,
    parse_attestation_object,
    parse_authenticator_data,
    parse_cbor,
    verify_signature,
)
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticationCredential,
    AuthenticatorAssertionResponse,
    AuthenticatorAttestationResponse,
    AuthenticatorData,
    AuthenticatorTransport,
    CredentialDeviceType,
    RegistrationCredential,
)

from userapi.factors.credentials import (
    AssertionAnswer,
    AuthenticatorState,
    ClientData,
    NewPasskey,
    RegistrationAnswer,
)
from userapi.factors.encoding import base64url
from userapi.factors.passkey_errors import PasskeyFault, ResponseRejected
from userapi.factors.relying_party import RelyingParty

ALGORITHMS = [
    COSEAlgorithmIdentifier.EDDSA,
    COSEAlgorithmIdentifier.ECDSA_SHA_256,
    COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256,
]
MIN_RSA_BITS = 2048
TRANSPORTS = frozenset(transport.value for transport in AuthenticatorTransport)
# The library indexes into CBOR that the authenticator has sent, and cryptography rejects keys.
_UNREADABLE = (WebAuthnException, ValueError, TypeError, LookupError, ArithmeticError)


def verify_assertion(
    answer: AssertionAnswer, *, party: RelyingParty, public_key: bytes, sign_count: int
) -> AuthenticatorState:
    """Verify an assertion (WebAuthn Level 3 §7.2). Raises ResponseRejected.

    The caller has read the challenge. A counter up to `sign_count` is rejected unless both are 0.
    """
    try:
        verified = verify_authentication_response(
            credential=AuthenticationCredential(
                id=base64url(answer.credential_id),
                raw_id=answer.credential_id,
                response=AuthenticatorAssertionResponse(
                    client_data_json=answer.client_data.raw,
                    authenticator_data=answer.authenticator_data,
                    signature=answer.signature,
                    user_handle=answer.user_handle,
                ),
            ),
            expected_challenge=answer.client_data.challenge,
            expected_rp_id=party.id,
            expected_origin=list(party.origins),
            credential_public_key=public_key,
            credential_current_sign_count=sign_count,
            require_user_verification=True,
        )
    except WebAuthnException as exc:
        if not _is_signed(answer, public_key):
            raise ResponseRejected(PasskeyFault.SIGNATURE) from exc
        raise ResponseRejected(_assertion_fault(answer, party, sign_count)) from exc
    return AuthenticatorState(
        sign_count=verified.new_sign_count,
        backup_eligible=verified.credential_device_type is CredentialDeviceType.MULTI_DEVICE,
        backed_up=verified.credential_backed_up,
    )


def verify_registration(answer: RegistrationAnswer, *, party: RelyingParty) -> NewPasskey:
    """Verify a new credential (WebAuthn Level 3 §7.1). Raises ResponseRejected.

    The caller has read the challenge. Attestation statements are not verified.
    """
    try:
        attestation_object = _without_statement(answer.attestation_object)
        verified = verify_registration_response(
            credential=RegistrationCredential(
                id=base64url(answer.credential_id),
                raw_id=answer.credential_id,
                response=AuthenticatorAttestationResponse(
                    client_data_json=answer.client_data.raw,
                    attestation_object=attestation_object,
                ),
            ),
            expected_challenge=answer.client_data.challenge,
            expected_rp_id=party.id,
            expected_origin=list(party.origins),
            require_user_verification=True,
            supported_pub_key_algs=ALGORITHMS,
        )
    except _UNREADABLE as exc:
        raise ResponseRejected(_registration_fault(answer, party)) from exc
    if verified.credential_id != answer.credential_id:
        raise ResponseRejected(PasskeyFault.MALFORMED)
    if not _is_usable(verified.credential_public_key):
        raise ResponseRejected(PasskeyFault.PUBLIC_KEY)
    return NewPasskey(
        public_key=verified.credential_public_key,
        transports=sorted(TRANSPORTS.intersection(answer.transports)),
        state=AuthenticatorState(
            sign_count=verified.sign_count,
            backup_eligible=verified.credential_device_type is CredentialDeviceType.MULTI_DEVICE,
            backed_up=verified.credential_backed_up,
        ),
    )


def _is_signed(answer: AssertionAnswer, public_key: bytes) -> bool:
    """Return whether the private key of a passkey has signed a response."""
    key = decode_credential_public_key(public_key)
    try:
        verify_signature(
            public_key=decoded_public_key_to_cryptography(key),
            signature_alg=key.alg,
            signature=answer.signature,
            data=answer.authenticator_data + sha256(answer.client_data.raw).digest(),
        )
    except InvalidSignature:
        return False
    return True


def _without_statement(attestation_object: bytes) -> bytes:
    """Return an attestation object without its statement, which the options do not request.

    Some authenticators send one anyway, in formats that the library does not support.
    """
    members = parse_cbor(attestation_object)
    return encode_cbor({"fmt": "none", "attStmt": {}, "authData": members["authData"]})


def _is_usable(public_key: bytes) -> bool:
    """Return whether assertions can be verified with a key, and whether it fits its algorithm.

    The library looks at the key of a new credential only to verify an attestation.
    """
    try:
        decoded = decode_credential_public_key(public_key)
        key = decoded_public_key_to_cryptography(decoded)
    except _UNREADABLE:
        return False
    match decoded.alg:
        case COSEAlgorithmIdentifier.EDDSA:
            return isinstance(key, Ed25519PublicKey)
        case COSEAlgorithmIdentifier.ECDSA_SHA_256:
            return isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
        case COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256:
            return isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS
        case _:
            return False


def _registration_fault(answer: RegistrationAnswer, party: RelyingParty) -> PasskeyFault:
    try:
        data = parse_attestation_object(_without_statement(answer.attestation_object)).auth_data
    except _UNREADABLE:
        data = None
    fault = _fault_of(answer.client_data, data, party=party, ceremony="webauthn.create")
    return fault or PasskeyFault.PUBLIC_KEY


def _assertion_fault(answer: AssertionAnswer, party: RelyingParty, sign_count: int) -> PasskeyFault:
    try:
        data = parse_authenticator_data(answer.authenticator_data)
    except _UNREADABLE:
        data = None
    fault = _fault_of(answer.client_data, data, party=party, ceremony="webauthn.get")
    if fault is None and data is not None and data.sign_count <= sign_count:
        return PasskeyFault.COUNTER
    return fault or PasskeyFault.MALFORMED


def _fault_of(
    client_data: ClientData, data: AuthenticatorData | None, *, party: RelyingParty, ceremony: str
) -> PasskeyFault | None:
    """Return why the library has rejected a response, in the order of its checks.

    Its exceptions contain the reason only as text.
    """
    if client_data.type != ceremony:
        return PasskeyFault.TYPE
    if client_data.origin not in party.origins:
        return PasskeyFault.ORIGIN
    if data is None:
        return PasskeyFault.MALFORMED
    if data.rp_id_hash != sha256(party.id.encode()).digest():
        return PasskeyFault.RP_ID
    if not data.flags.up:
        return PasskeyFault.USER_PRESENCE
    if not data.flags.uv:
        return PasskeyFault.USER_VERIFICATION
    if data.flags.bs and not data.flags.be:
        return PasskeyFault.BACKUP_FLAGS
    return None
