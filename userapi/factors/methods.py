"""The ways to pass the second step of a sign-in."""

from collections.abc import Mapping
from enum import StrEnum

from userapi.sessions import authentication_level


class Method(StrEnum):
    """A second factor, or a recovery code in place of one."""

    PASSKEY = "passkey"
    RECOVERY_CODE = "recovery_code"
    TOTP = "totp"


# The authentication methods (RFC 8176) of each.
AMR: Mapping[Method, tuple[str, ...]] = {
    Method.PASSKEY: authentication_level.PASSKEY,
    Method.RECOVERY_CODE: authentication_level.RECOVERY,
    Method.TOTP: authentication_level.OTP,
}


class FactorType(StrEnum):
    """The types of factors that users add."""

    PASSKEY = "passkey"
    TOTP = "totp"


class MfaOutcome(StrEnum):
    """How the try of a second step ended."""

    FAILURE = "failure"
    LOCKED = "locked"
    SUCCESS = "success"
