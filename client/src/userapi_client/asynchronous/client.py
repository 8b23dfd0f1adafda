"""A client of the REST API with retries, token refresh and idempotency."""

import threading
from typing import Any, Self

import httpx2

from userapi_client import requests
from userapi_client.asynchronous.authentication import (
    AsyncAuthentication,
    AsyncClientAuthentication,
    AsyncKeyAuthentication,
    AsyncSessionAuthentication,
)
from userapi_client.asynchronous.exchange import AsyncExchange
from userapi_client.asynchronous.machine_resources import (
    AsyncApiKeysApi,
    AsyncServiceAccountsApi,
)
from userapi_client.asynchronous.resources import (
    AsyncAuditApi,
    AsyncAuthApi,
    AsyncRolesApi,
    AsyncUsersApi,
)
from userapi_client.asynchronous.runtime import (
    AsyncHttpClient,
    AsyncTransport,
    new_http_client,
    owner,
)
from userapi_client.base_url import checked_base_url
from userapi_client.credentials import ApiKey, ClientCredentials, Login, Tokens
from userapi_client.errors import UserApiError
from userapi_client.replies import problem_of
from userapi_client.token_pair import HeldToken


class AsyncClient:
    """Calls the service for one user or one service account. Share one client in a process."""

    def __init__(
        self,
        base_url: str,
        auth: ApiKey | ClientCredentials | Login | Tokens | None = None,
        *,
        timeout: float = 10,
        retries: int = 3,
        budget: float = 30,
        transport: AsyncTransport | None = None,
    ) -> None:
        """`timeout` limits an attempt, `budget` all attempts and waits of a call, in seconds.

        Idempotent requests are retried up to `retries` times. No redirect is followed.
        """
        self._base_url = checked_base_url(base_url)
        self._timeout = timeout
        self._transport = transport
        self._lock = threading.Lock()
        self._http_client: AsyncHttpClient | None = None
        self._owner: object = None
        self._closed = False
        self._exchange = AsyncExchange(retries=retries, budget=budget, http=self._http)
        self._session: AsyncSessionAuthentication | None = None
        self._authentication = self._authentication_with(auth)
        self.auth = AsyncAuthApi(self, adopt=self._adopt, refresh=self._refresh)
        self.users = AsyncUsersApi(self)
        self.roles = AsyncRolesApi(self)
        self.service_accounts = AsyncServiceAccountsApi(self)
        self.api_keys = AsyncApiKeysApi(self)
        self.audit = AsyncAuditApi(self)

    @property
    def tokens(self) -> Tokens | None:
        """The current token pair of a session, to be stored; None for other credentials."""
        return None if self._session is None else self._session.tokens

    async def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Send a request and return its response. Raises UserApiError for a status from 400 on.

        `path` is relative to the service; `/users/` is short for `/api/v1/users/`. Options are
        `params`, `json`, `data`, `content`, `headers`, `idempotency_key`, `if_match` and `timeout`.
        """
        return await self.send(requests.call(method, path, **options))

    async def send(self, call: requests.Call) -> httpx2.Response:
        """Send a request with a token; repeat it with a new token if the first one is rejected."""
        self._require_own()
        token = await self._authentication.token()
        response = await self._exchange.send(call, authorization=_bearer(token))
        if response.status_code == 401 and token is not None:
            if await self._authentication.replace(token, problem_of(response)):
                token = await self._authentication.token()
                response = await self._exchange.send(call, authorization=_bearer(token))
        if response.status_code >= 300:
            raise problem_of(response)
        if token is not None:
            self._authentication.note_accepted(token)
        return response

    async def close(self) -> None:
        """Close all connections. Can be called more than once."""
        self._closed = True
        http, self._http_client = self._http_client, None
        if http is not None and self._owner is owner():
            await http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _authentication_with(
        self, auth: ApiKey | ClientCredentials | Login | Tokens | None
    ) -> AsyncAuthentication:
        if isinstance(auth, ClientCredentials):
            return AsyncClientAuthentication(auth, self._exchange)
        if isinstance(auth, Login | Tokens):
            self._session = AsyncSessionAuthentication(auth, self._exchange)
            return self._session
        return AsyncKeyAuthentication(None if auth is None else auth.key)

    def _adopt(self, pair: HeldToken) -> None:
        if self._session is not None:
            self._session.adopt(pair)

    async def _refresh(self) -> Tokens:
        self._require_own()
        if self._session is None:
            raise UserApiError("These credentials have no tokens to refresh.")
        return await self._session.refresh()

    def _http(self) -> AsyncHttpClient:
        self._require_own()
        with self._lock:
            if self._http_client is None:
                self._http_client = new_http_client(
                    self._base_url, timeout=self._timeout, transport=self._transport
                )
            return self._http_client

    def _require_own(self) -> None:
        """Create new locks and sockets after a fork, and in another event loop."""
        if self._closed:
            raise UserApiError("This client is closed.")
        current = owner()
        if self._owner is not current:
            self._lock = threading.Lock()
            self._http_client = None
            self._authentication.renew()
            self._owner = current


def _bearer(token: str | None) -> str | None:
    return None if token is None else f"Bearer {token}"
