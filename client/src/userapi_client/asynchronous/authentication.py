"""Where the bearer token of a request comes from, and what happens if it is rejected."""

import time
from typing import Protocol

import httpx2

from userapi_client import requests
from userapi_client.asynchronous.exchange import AsyncExchange
from userapi_client.asynchronous.flights import AsyncFlights
from userapi_client.credentials import ClientCredentials, Login, Tokens
from userapi_client.errors import OAuthError, Problem, SessionEnded, Unavailable
from userapi_client.replies import ENDED, body_of, problem_of, retry_after_of, session_ended
from userapi_client.token_pair import HeldToken, given, held

# How long a rejected client secret, or a rejected new token, is not tried again.
REFUSAL_SECONDS = 5


class AsyncAuthentication(Protocol):
    """Provides tokens. Methods can be called concurrently."""

    async def token(self) -> str | None:
        """Return the token to send, or None to send none. Raises UserApiError."""

    async def replace(self, token: str, problem: Problem) -> bool:
        """Return whether there is another token than the rejected one. Raises UserApiError."""

    def note_accepted(self, token: str) -> None:
        """Record that the service has accepted this token."""

    def renew(self) -> None:
        """Create new locks, after a fork or in another event loop."""


class AsyncKeyAuthentication:
    """An API key, or nothing. Neither can be replaced."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    async def token(self) -> str | None:
        """Return the key."""
        return self._key

    async def replace(self, token: str, problem: Problem) -> bool:
        """Return False: a rejected key stays rejected."""
        return False

    def note_accepted(self, token: str) -> None:
        """Do nothing: the outcome is not used."""

    def renew(self) -> None:
        """Do nothing: there are no locks."""


class AsyncClientAuthentication:
    """Tokens of a service account: fetched once for all callers, renewed before they expire."""

    def __init__(self, credentials: ClientCredentials, exchange: AsyncExchange) -> None:
        self._credentials = credentials
        self._exchange = exchange
        self._flights: AsyncFlights[HeldToken] = AsyncFlights()
        self._held: HeldToken | None = None
        self._refusal: OAuthError | None = None
        self._refused_at = float("-inf")

    async def token(self) -> str:
        """Return a token. Raises OAuthError, Unavailable."""
        current = self._held
        if current is None or current.is_over:
            current = await self._flights.run("fetch", self._fetch)
        elif current.is_due:
            current = await self._renewed(current)
        return current.access_token

    async def replace(self, token: str, problem: Problem) -> bool:
        """Fetch another token, unless the rejected one was itself new."""
        current = self._held
        if current is not None and current.access_token == token:
            if not current.was_accepted and current.age < REFUSAL_SECONDS:
                return False
            self._held = None
        current = self._held or await self._flights.run("fetch", self._fetch)
        return current.access_token != token

    def note_accepted(self, token: str) -> None:
        """Record that the token was accepted, so that a later rejection causes a fetch."""
        current = self._held
        if current is not None and current.access_token == token:
            current.was_accepted = True

    def renew(self) -> None:
        """Create new locks, after a fork or in another event loop."""
        self._flights = AsyncFlights()

    async def _renewed(self, current: HeldToken) -> HeldToken:
        """Return a new token, or the current one if fetching fails and it is still valid."""
        try:
            return await self._flights.run("fetch", self._fetch)
        except Unavailable:
            if current.is_over:
                raise
            return current

    async def _fetch(self) -> HeldToken:
        current = self._held
        if current is not None and not current.is_due:
            return current  # Another caller has fetched it meanwhile.
        if self._refusal is not None and time.monotonic() - self._refused_at < REFUSAL_SECONDS:
            raise OAuthError(*self._refusal.args)
        try:
            found = await self._request()
        except OAuthError as exc:
            if exc.error == "invalid_client":
                self._refusal, self._refused_at = exc, time.monotonic()
            raise
        self._held = found
        return found

    async def _request(self) -> HeldToken:
        credentials = self._credentials
        form = {"grant_type": "client_credentials"}
        if credentials.scope is not None:
            form["scope"] = credentials.scope
        # Fetching a token again after a lost response is harmless.
        call = requests.call("POST", "/auth/token", data=form)
        basic = httpx2.BasicAuth(credentials.client_id, credentials.client_secret)
        authorization = next(basic.auth_flow(httpx2.Request("POST", "http://localhost"))).headers[
            "Authorization"
        ]
        response = await self._exchange.send(requests.repeatable(call), authorization=authorization)
        answer = body_of(response)
        if response.status_code == 200:
            return held(answer, with_refresh=False)
        error, description = answer.get("error"), answer.get("error_description")
        if isinstance(error, str) and response.status_code in (400, 401, 403):
            raise OAuthError(error, description if isinstance(description, str) else None)
        if response.status_code == 429:
            raise Unavailable(retry_after_of(response), "Too many tokens were requested.")
        raise problem_of(response)


class AsyncSessionAuthentication:
    """The session of a person: logs in once, and refreshes once for all callers."""

    def __init__(self, source: Login | Tokens, exchange: AsyncExchange) -> None:
        self._login = source if isinstance(source, Login) else None
        self._exchange = exchange
        self._flights: AsyncFlights[HeldToken] = AsyncFlights()
        self._held = (
            given(source.access_token, source.refresh_token) if isinstance(source, Tokens) else None
        )
        self._end: SessionEnded | None = None

    @property
    def tokens(self) -> Tokens | None:
        """The current pair, to be stored; None before the log-in."""
        current = self._held
        if current is None or current.refresh_token is None:
            return None
        return Tokens(current.access_token, current.refresh_token)

    async def token(self) -> str:
        """Return an access token. Raises SessionEnded, Problem, Unavailable."""
        self._require_session()
        current = self._held
        if current is None:
            current = await self._flights.run("pair", self._log_in)
        elif current.is_nearly_over:
            current = await self._refreshed_early(current)
        return current.access_token

    async def replace(self, token: str, problem: Problem) -> bool:
        """Refresh an expired token. A revoked one ends the session, unless it was replaced."""
        current = self._held
        if current is not None and current.access_token != token:
            return True  # Another caller has refreshed, or changed the password.
        if problem.code == "token_expired":
            return (await self._refreshed(token)).access_token != token
        if problem.code in ENDED:
            raise self._ended(problem)
        return False

    def note_accepted(self, token: str) -> None:
        """Do nothing: the outcome is not used."""

    def renew(self) -> None:
        """Create new locks, after a fork or in another event loop."""
        self._flights = AsyncFlights()

    def adopt(self, pair: HeldToken) -> None:
        """Use another pair of the same session."""
        self._held = pair

    async def refresh(self) -> Tokens:
        """Exchange the pair for a new one, and return it; once for many callers.

        Raises SessionEnded, Problem, Unavailable.
        """
        pair = await self._refreshed(await self.token())
        return Tokens(pair.access_token, pair.refresh_token or "")

    async def _refreshed_early(self, current: HeldToken) -> HeldToken:
        try:
            return await self._refreshed(current.access_token)
        except Unavailable:
            if current.is_over:
                raise
            return current

    async def _refreshed(self, refused: str) -> HeldToken:
        async def refresh() -> HeldToken:
            return await self._refresh(refused)

        return await self._flights.run("pair", refresh)

    async def _refresh(self, refused: str) -> HeldToken:
        self._require_session()
        current = self._held
        if current is None or current.refresh_token is None:
            raise Unavailable(detail="There is no refresh token.")
        if current.access_token != refused:
            return current  # Another caller has refreshed meanwhile.
        # A retry after a lost response receives the same successor (REFRESH_REUSE_GRACE_SECONDS).
        call = requests.call("POST", "/auth/refresh", json={"refresh_token": current.refresh_token})
        response = await self._exchange.send(requests.repeatable(call))
        if response.status_code == 401:
            raise self._ended(problem_of(response))
        if response.status_code != 200:
            raise problem_of(response)
        self._held = found = held(body_of(response), with_refresh=True)
        return found

    async def _log_in(self) -> HeldToken:
        if self._held is not None:
            return self._held
        if self._login is None:
            raise Unavailable(detail="There are no tokens.")
        body = {"username": self._login.username, "password": self._login.password}
        response = await self._exchange.send(requests.call("POST", "/auth/login", json=body))
        if response.status_code != 200:
            raise problem_of(response)
        self._held = found = held(body_of(response), with_refresh=True)
        return found

    def _ended(self, problem: Problem) -> SessionEnded:
        self._end = session_ended(problem)
        return self._end

    def _require_session(self) -> None:
        if self._end is not None:
            raise SessionEnded(*self._end.args)
