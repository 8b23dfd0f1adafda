"""Protects FastAPI endpoints. Needs the extra `fastapi`."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import FastAPI, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from userapi_client.asynchronous.verifier import AsyncVerifier
from userapi_client.principal import Principal
from userapi_client.requirement import Requirement
from userapi_client.responses import ANSWERED, bearer_token
from userapi_client.starlette import response_to

# Only for the document and its Authorize button: the header is read by `bearer_token`.
_bearer = HTTPBearer(
    auto_error=False, description="An access token or an API key of the User Management Service."
)
_Documented = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


class Auth:
    """Protects the endpoints of an application with one verifier."""

    def __init__(self, verifier: AsyncVerifier) -> None:
        self._verifier = verifier

    def install(self, app: FastAPI) -> None:
        """Return problem documents to rejected callers: 401, 403 and 503."""
        for error in ANSWERED:
            app.add_exception_handler(error, _handle)

    def required(
        self,
        *permissions: str,
        fresh: bool = False,
        max_age: float | None = None,
        acr: str | None = None,
    ) -> Callable[[Request, _Documented], Awaitable[Principal]]:
        """Return a dependency that requires that the caller has all these permissions.

        `fresh` queries the service, so that revocations take effect immediately. `max_age`
        (seconds) and `acr` require a recent or strong authentication of a person.
        """
        requirement = Requirement(permissions=permissions, fresh=fresh, max_age=max_age, acr=acr)

        async def principal(request: Request, _: _Documented) -> Principal:
            token = bearer_token(request.headers.get("Authorization"))
            address = None if request.client is None else request.client.host
            found = await self._verifier.verify(token, fresh=requirement.fresh, address=address)
            requirement.check(found)
            return found

        return principal


async def _handle(request: Request, error: Exception) -> Response:
    return response_to(request, error)
