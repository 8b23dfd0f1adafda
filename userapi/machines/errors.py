"""Errors of the use cases of service accounts, API keys and client tokens."""

from userapi.authentication.refusals import TokenInvalid
from userapi.errors import Conflict, Forbidden, Malformed, NotFound, Unauthenticated


class ServiceAccountNotFound(NotFound):
    """No service account has this id or name."""

    title = "This service account does not exist."


class ServiceAccountNameTaken(Conflict):
    """Another service account has this name."""

    code = "name_taken"
    title = "This name is taken."


class ApiKeyNotFound(NotFound):
    """The owner has no key with this id."""

    title = "This API key does not exist."


class KeyLimitReached(Conflict):
    """The owner has as many active keys as allowed."""

    code = "key_limit_reached"
    title = "The owner has the maximum number of active API keys."


class KeyAlreadyRotated(Conflict):
    """Another key has replaced this one."""

    code = "key_already_rotated"
    title = "This API key was rotated already."


class KeyNotActive(Conflict):
    """The key is revoked or has expired."""

    code = "key_not_active"
    title = "This API key is not active."


class PersonalKeysDisabled(Forbidden):
    """The operator has disabled API keys of users."""

    code = "personal_keys_disabled"
    title = "Personal API keys are disabled."


class KeyMalformed(TokenInvalid):
    """The text has the form of a key and a wrong checksum: it was mistyped or made up."""


class NetworkNotAllowed(Forbidden):
    """The request comes from an address that the key does not allow."""

    code = "network_not_allowed"
    title = "This API key cannot be used from this address."


# The errors of OAuth clients (RFC 6749 §5.2)


class OAuthRequestInvalid(Malformed):
    """The request is malformed or lacks a parameter (RFC 6749 §5.2)."""

    code = "invalid_request"
    title = "The token request is malformed."


class UnsupportedGrantType(Malformed):
    """The grant is not client_credentials."""

    code = "unsupported_grant_type"
    title = "Only the grant type client_credentials is supported."


class InvalidClient(Unauthenticated):
    """The client is unknown, or its secret is not one of its active keys."""

    code = "invalid_client"
    title = "The client is unknown or its secret is wrong."
    challenge = 'Basic realm="userapi"'


class UnauthorizedClient(Malformed):
    """The secret is right, and the client may not use it now or from here."""

    code = "unauthorized_client"
    title = "This client may not request a token."


class InvalidTarget(Malformed):
    """The requested audience is not that of this service (RFC 8707 §2)."""

    code = "invalid_target"
    title = "Tokens are issued for the audience of this service only."


class InvalidScope(Malformed):
    """The client does not hold a requested permission."""

    code = "invalid_scope"
    title = "The client does not hold a requested permission."
