"""Authenticates requests of Starlette applications.

Middleware(AuthenticationMiddleware, backend=UserApiBackend(verifier), on_error=on_error)
"""

from collections.abc import Callable, Coroutine
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec

from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    BaseUser,
)
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from userapi_client.asynchronous.verifier import AsyncVerifier
from userapi_client.errors import TokenRefused, Unavailable, UserApiError
from userapi_client.principal import Principal
from userapi_client.requirement import Requirement
from userapi_client.responses import ANSWERED, CORRELATION_ID, bearer_token, error_response

P = ParamSpec("P")
Endpoint = Callable[Concatenate[Request, P], Coroutine[Any, Any, Response]]


class Refused(AuthenticationError):
    """The error for a caller whose token is rejected."""

    def __init__(self, error: UserApiError) -> None:
        super().__init__(str(error))
        self.error = error


class Caller(BaseUser):
    """The `user` of an authenticated request."""

    def __init__(self, principal: Principal) -> None:
        self.principal = principal

    @property
    def is_authenticated(self) -> bool:
        """Whether the caller has sent a valid token: always true."""
        return True

    @property
    def display_name(self) -> str:
        """The name of the caller, or their id if the name is unknown."""
        return self.principal.username or self.principal.id

    @property
    def identity(self) -> str:
        """The id of the caller."""
        return self.principal.id


class UserApiBackend(AuthenticationBackend):
    """Reads the bearer token of a request. A request without one stays anonymous."""

    def __init__(self, verifier: AsyncVerifier) -> None:
        self._verifier = verifier

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Return the caller, with `scopes` that support wildcards. Raises Refused."""
        header = conn.headers.get("Authorization")
        if header is None:
            return None
        address = None if conn.client is None else conn.client.host
        try:
            principal = await self._verifier.verify(bearer_token(header), address=address)
        except (TokenRefused, Unavailable) as exc:
            if isinstance(exc, TokenRefused) and exc.code == "authentication_required":
                return None  # Another scheme.
            raise Refused(exc) from exc
        credentials = AuthCredentials()
        # Starlette only looks for names in it.
        credentials.scopes = principal.permissions  # type: ignore[assignment]
        return credentials, Caller(principal)


def on_error(connection: HTTPConnection, error: Exception) -> Response:
    """Return the problem document for a rejected caller: 401, 403 or 503 instead of 400."""
    return response_to(connection, error.error if isinstance(error, Refused) else error)


def required(
    *permissions: str, max_age: float | None = None, acr: str | None = None
) -> Callable[[Endpoint[P]], Endpoint[P]]:
    """Require that the caller has all these permissions.

    Unlike Starlette's `requires`, it returns 401 to a request without a token.
    """
    requirement = Requirement(permissions=permissions, max_age=max_age, acr=acr)

    def decorate(endpoint: Endpoint[P]) -> Endpoint[P]:
        async def protected(request: Request, /, *args: P.args, **kwargs: P.kwargs) -> Response:
            try:
                caller = request.user
                if not isinstance(caller, Caller):
                    raise TokenRefused("authentication_required")
                requirement.check(caller.principal)
            except ANSWERED as exc:
                return response_to(request, exc)
            return await endpoint(request, *args, **kwargs)

        update_wrapper(protected, endpoint)
        return protected

    return decorate


def response_to(connection: HTTPConnection, error: Exception) -> Response:
    """Return the problem document for an error of this package. Raises any other error."""
    if not isinstance(error, UserApiError):
        raise error
    answer = error_response(
        error, path=connection.url.path, correlation_id=connection.headers.get(CORRELATION_ID)
    )
    return Response(answer.body, answer.status, headers=dict(answer.headers))
