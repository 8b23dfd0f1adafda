"""Errors of second factors."""

from userapi.errors import Conflict, Forbidden, NotFound, Unauthenticated


class ProofRefused(Unauthenticated):
    """A code, a credential or an mfa_token is not accepted.

    The access token of the request, if there is one, stays valid.
    """


class InvalidCode(ProofRefused):
    """The code is wrong, used, expired or malformed. The response does not reveal which."""

    code = "invalid_code"
    title = "The code is invalid."


class MfaTokenInvalid(ProofRefused):
    """The mfa_token is unknown, used, expired or void."""

    code = "mfa_token_invalid"
    title = "This sign-in has expired. Start again."


class MfaRequired(Forbidden):
    """The password is correct, and the account needs a second step."""

    code = "mfa_required"
    title = "A second step is required."


class TotpDisabled(Forbidden):
    """The operator has disabled the adding of authenticator apps."""

    code = "totp_disabled"
    title = "Authenticator apps cannot be added."


class FactorNotFound(NotFound):
    """The user has no second factor with that id."""

    title = "This second factor does not exist."


class TooManyFactors(Conflict):
    """The user has as many second factors of this type as allowed."""

    code = "too_many_factors"
    title = "You have as many of these as allowed. Remove one first."


class MfaNotEnabled(Conflict):
    """The account has no second factor."""

    code = "mfa_not_enabled"
    title = "Two-step sign-in is off. Add a second factor first."


class MfaRequiredByRole(Conflict):
    """The last second factor of a user whose role demands one cannot be removed."""

    code = "mfa_required_by_role"
    title = "Your role requires a second factor. Add another one first."


class MfaMethodUnavailable(Conflict):
    """The account has no passkey that can be used now."""

    code = "mfa_method_unavailable"
    title = "This account has no passkey."
