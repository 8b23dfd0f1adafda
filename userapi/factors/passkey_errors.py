"""Errors of passkeys."""

from enum import StrEnum

from userapi.errors import Conflict, Forbidden, Malformed
from userapi.factors.errors import ProofRefused


class PasskeyFault(StrEnum):
    """Why the response of an authenticator is rejected. Only the audit log shows it."""

    BACKUP_FLAGS = "backup_flags"
    CHALLENGE = "challenge"
    COUNTER = "counter"
    CROSS_ORIGIN = "cross_origin"
    MALFORMED = "malformed"
    ORIGIN = "origin"
    PUBLIC_KEY = "public_key"
    RP_ID = "rp_id"
    SIGNATURE = "signature"
    TYPE = "type"
    UNKNOWN_CREDENTIAL = "unknown_credential"
    USER_HANDLE = "user_handle"
    USER_PRESENCE = "user_presence"
    USER_VERIFICATION = "user_verification"


class ResponseRejected(Exception):
    """The response of an authenticator fails a check.

    Every fault but `SIGNATURE` means that the passkey has signed the response.
    """

    def __init__(self, fault: PasskeyFault) -> None:
        super().__init__(fault)
        self.fault = fault


class PasskeyInvalid(ProofRefused):
    """The response of the authenticator fails a check; the error does not say which."""

    code = "passkey_invalid"
    title = "The passkey could not be verified. Try again."


class PasskeyUnknown(ProofRefused):
    """No account has this passkey. The browser may delete it."""

    code = "passkey_unknown"
    title = "No account has this passkey."


class PasskeyRejected(Malformed):
    """A new passkey fails a check; the error does not say which."""

    code = "passkey_invalid"
    title = "The passkey could not be added. Try again."


class PasskeyTaken(Conflict):
    """An account has this passkey already."""

    code = "passkey_taken"
    title = "This passkey is already in use."


class PasskeysDisabled(Forbidden):
    """The operator has disabled passkeys, or the service has no address that can have them."""

    code = "passkeys_disabled"
    title = "Passkeys are not available."
