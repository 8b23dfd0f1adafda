"""Queries the service about one token."""

import logging
from collections.abc import Callable

import httpx2

from userapi_client import answers
from userapi_client.answers import UNUSABLE, Answer
from userapi_client.asynchronous.runtime import AsyncHttpClient, read_limited
from userapi_client.claims import AccessToken
from userapi_client.credentials import ApiKey, ClientCredentials
from userapi_client.errors import TokenRefused, Unavailable
from userapi_client.replies import retry_after_of

log = logging.getLogger("userapi_client")

MAX_BYTES = 256 * 1024


class AsyncQuestions:
    """Queries with the credentials of this program, or else with the caller's own token."""

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        credentials: ApiKey | ClientCredentials | None,
        timeout: float,
        http: Callable[[], AsyncHttpClient],
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._credentials = credentials
        self._timeout = timeout
        self._http = http

    async def ask(self, token: str, signed: AccessToken | None) -> Answer:
        """Return the caller as the service returns them. Raises TokenRefused, Unavailable."""
        if self._credentials is None:
            return await self._verify(token, signed)
        return await self._introspect(token, signed, self._credentials)

    async def _verify(self, token: str, signed: AccessToken | None) -> Answer:
        request = self._http().build_request(
            "GET", "/api/v1/auth/verify", headers={"Authorization": f"Bearer {token}"}
        )
        response, body = await self._send(request)
        if response.status_code == 200:
            return answers.verified(answers.parse_object(body), signed)
        refusal = answers.refusal(response.status_code, body)
        if refusal is None:
            raise self._unavailable(response)
        if refusal.code in answers.RESTRICTIONS and signed is not None:
            return answers.powerless(signed)
        raise refusal

    async def _introspect(
        self, token: str, signed: AccessToken | None, credentials: ApiKey | ClientCredentials
    ) -> Answer:
        http = self._http()
        request = http.build_request("POST", "/api/v1/auth/introspect", data={"token": token})
        if isinstance(credentials, ApiKey):
            request.headers["Authorization"] = f"Bearer {credentials.key}"
        else:
            basic = httpx2.BasicAuth(credentials.client_id, credentials.client_secret)
            request = next(basic.auth_flow(request))
        response, body = await self._send(request)
        if response.status_code == 200:
            return answers.introspected(
                answers.parse_object(body), signed, issuer=self._issuer, audience=self._audience
            )
        if response.status_code in (400, 422):
            raise TokenRefused("token_invalid")  # The string cannot be a token.
        if response.status_code in (401, 403):
            log.error("userapi.introspection_refused: status %d", response.status_code)
        raise self._unavailable(response)

    async def _send(self, request: httpx2.Request) -> tuple[httpx2.Response, bytes]:
        try:
            return await read_limited(
                self._http(), request, seconds=self._timeout, max_bytes=MAX_BYTES
            )
        except httpx2.HTTPError as exc:
            raise Unavailable() from exc
        except ValueError as exc:
            raise Unavailable(detail=UNUSABLE) from exc

    def _unavailable(self, response: httpx2.Response) -> Unavailable:
        return Unavailable(retry_after_of(response))
