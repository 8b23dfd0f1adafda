"""Why a token is rejected. Clients distinguish the codes (RFC 6750 §3.1)."""

from userapi.errors import Unauthenticated


class AuthenticationRequired(Unauthenticated):
    """The request contains no token."""


class TokenRefused(Unauthenticated):
    """The request contains a token, in a header or in the body, that is not accepted."""


class TokenInvalid(TokenRefused):
    """The signature, the type, a claim or the key of the token is wrong."""

    code = "token_invalid"
    title = "The token is invalid."


class TokenExpired(TokenRefused):
    """The token was valid and has expired."""

    code = "token_expired"
    title = "The token has expired."


class TokenRevoked(TokenRefused):
    """The token or key is genuine, but was revoked, or its session or account has ended."""

    code = "token_revoked"
    title = "The token or key was revoked, or its session has ended."
