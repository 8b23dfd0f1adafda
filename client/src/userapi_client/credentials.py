"""The credentials of a program. No `repr` contains a secret."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A personal key or a service key."""

    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """A service account and one of its keys, exchanged for tokens (RFC 6749 §4.4).

    `scope` lists the requested permissions, separated by spaces; None requests all of the account.
    """

    client_id: str
    client_secret: str = field(repr=False)
    scope: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class Login:
    """A user name or e-mail address and its password. The client logs in at its first request."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tokens:
    """A pair of tokens from a log-in. The client refreshes them."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
