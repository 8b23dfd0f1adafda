"""Errors of the use cases of service accounts and API keys."""

from userapi.errors import Conflict, Forbidden, NotFound


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


class NetworkNotAllowed(Forbidden):
    """The request comes from an address that the key does not allow."""

    code = "network_not_allowed"
    title = "This API key cannot be used from this address."
