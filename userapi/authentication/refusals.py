"""Why a token is refused. The codes are what clients switch on (RFC 6750 §3.1)."""

from userapi.errors import Unauthenticated


class AuthenticationRequired(Unauthenticated):
    """No token was sent."""


class TokenRefused(Unauthenticated):
    """A token was sent, in a header or a body, and is worth nothing."""


class TokenInvalid(TokenRefused):
    """The signature, the type, a claim or the key of the token is not right."""

    code = "token_invalid"
    title = "The token is invalid."


class TokenExpired(TokenRefused):
    """The token was good once."""

    code = "token_expired"
    title = "The token has expired."


class TokenRevoked(TokenRefused):
    """The token is well made, but its session has ended."""

    code = "token_revoked"
    title = "The session of this token has ended."
