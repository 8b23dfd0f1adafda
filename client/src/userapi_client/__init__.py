"""Client of the User Management Service: verify its tokens, call its API, consume its events.

`Verifier` returns who calls your service, `Client` calls the REST API, and
`userapi_client.events.EventConsumer` receives events. Integrations: `userapi_client.flask`,
`.fastapi`, `.starlette`, `.django`, `.drf`.
"""

from userapi_client.asynchronous.client import AsyncClient
from userapi_client.asynchronous.verifier import AsyncVerifier
from userapi_client.credentials import ApiKey, ClientCredentials, Login, Tokens
from userapi_client.errors import (
    FreshAuthenticationRequired,
    OAuthError,
    PermissionDenied,
    Problem,
    SessionEnded,
    Stale,
    TokenRefused,
    Unavailable,
    UserApiError,
)
from userapi_client.key_form import KeyInfo, parse_key
from userapi_client.page import Page
from userapi_client.permissions import Permissions
from userapi_client.principal import Principal
from userapi_client.revocation import Events, Introspection, Revocation, SignatureOnly
from userapi_client.synchronous.client import Client
from userapi_client.synchronous.verifier import Verifier

__version__ = "1.0.0"

__all__ = [
    "ApiKey",
    "AsyncClient",
    "AsyncVerifier",
    "Client",
    "ClientCredentials",
    "Events",
    "FreshAuthenticationRequired",
    "Introspection",
    "KeyInfo",
    "Login",
    "OAuthError",
    "Page",
    "PermissionDenied",
    "Permissions",
    "Principal",
    "Problem",
    "Revocation",
    "SessionEnded",
    "SignatureOnly",
    "Stale",
    "TokenRefused",
    "Tokens",
    "Unavailable",
    "UserApiError",
    "Verifier",
    "__version__",
    "parse_key",
]
