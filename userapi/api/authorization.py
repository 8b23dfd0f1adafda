"""The Authorization header (RFC 9110 §11.6.2)."""

from flask import request

from userapi.authentication.refusals import AuthenticationRequired, TokenInvalid

from .context import unproxied


def authorization() -> tuple[str, str]:
    """Return the scheme, in lower case, and the credentials. Both are empty without the header."""
    header = unproxied(request).environ.get("HTTP_AUTHORIZATION", "")
    scheme, _, credentials = header.partition(" ")
    return scheme.lower(), credentials.strip()


def bearer_token() -> str:
    """Return the token of the request. Raises AuthenticationRequired, TokenInvalid."""
    scheme, token = authorization()
    if scheme != "bearer":
        raise AuthenticationRequired()
    if not token or " " in token:
        raise TokenInvalid()
    return token
