"""Verifies tokens and keys of the User Management Service."""

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Self

from userapi_client.answer_cache import AnswerCache
from userapi_client.answers import Answer
from userapi_client.asynchronous.flights import AsyncFlights
from userapi_client.asynchronous.keys import AsyncKeys, KeyTimes
from userapi_client.asynchronous.questions import AsyncQuestions
from userapi_client.asynchronous.runtime import (
    AsyncHttpClient,
    AsyncTransport,
    new_http_client,
    owner,
    permissions_from,
)
from userapi_client.base_url import checked_base_url
from userapi_client.claims import (
    MAX_TOKEN_LENGTH,
    AccessToken,
    access_token_header,
    key_id_of,
    read_claims,
    read_signed,
    unverified_claims,
)
from userapi_client.credentials import ApiKey, ClientCredentials
from userapi_client.errors import TokenRefused, Unavailable
from userapi_client.key_form import looks_like_key, parse_key
from userapi_client.permissions import Permissions
from userapi_client.principal import Principal
from userapi_client.revocation import Events, Introspection, Revocation, SignatureOnly
from userapi_client.revocation_state import RevocationState, Verdict
from userapi_client.seen_tokens import SeenToken, SeenTokens
from userapi_client.subscription import Subscription, subscribe

ALGORITHMS = ("ES256", "EdDSA", "RS256")


class AsyncVerifier:
    """Returns who calls. Share one verifier in a process; all threads and tasks can use it."""

    def __init__(
        self,
        base_url: str,
        *,
        issuer: str,
        audience: str,
        algorithm: Literal["ES256", "EdDSA", "RS256"] | None = "ES256",
        revocation: Revocation = SignatureOnly(),
        credentials: ApiKey | ClientCredentials | None = None,
        leeway: float = 10,
        keys_fresh: float = 300,
        keys_usable: float = 3600,
        keys_retry: float = 10,
        timeout: float = 3,
        cache_size: int = 10_000,
        transport: AsyncTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """All times are seconds. `algorithm` is the one that the service signs with.

        Use None for HS256, whose tokens only the service can verify. With `credentials`, the
        verifier uses introspection, which requires the permission `tokens:introspect`; otherwise it
        queries the service with the token of the caller.
        """
        if algorithm is not None and algorithm not in ALGORITHMS:
            raise ValueError(f"The algorithm must be one of {', '.join(ALGORITHMS)}, or None.")
        self._base_url = checked_base_url(base_url)
        self._issuer = issuer
        self._audience = audience
        self._algorithm = algorithm
        self._revocation = revocation
        self._leeway = leeway
        self._timeout = timeout
        self._transport = transport
        self._clock = clock
        self._lock = threading.Lock()
        self._http_client: AsyncHttpClient | None = None
        self._owner: object = None
        self._seen = SeenTokens(size=cache_size)
        self._answers = AnswerCache(
            seconds=revocation.cache_seconds if isinstance(revocation, Introspection) else 0,
            size=cache_size,
        )
        self._flights: AsyncFlights[Answer] = AsyncFlights()
        self._keys = AsyncKeys(
            algorithm=algorithm or "",
            times=KeyTimes(fresh=keys_fresh, usable=keys_usable, retry=keys_retry, timeout=timeout),
            clock=clock,
            http=self._http,
        )
        self._questions = AsyncQuestions(
            issuer=issuer,
            audience=audience,
            credentials=credentials,
            timeout=timeout,
            http=self._http,
        )
        self._subscription: Subscription | None = None
        self._closed = False

    async def verify(
        self, token: str, *, fresh: bool = False, address: str | None = None
    ) -> Principal:
        """Return who holds this token or key. Raises only TokenRefused and Unavailable.

        `fresh` always queries the service: use it for operations that cannot be undone. `address`
        is the caller's network address; a key that is bound to networks is rejected without it.
        """
        digest = _digest(token)
        seen = self._seen.find(digest)
        if seen is None or seen.generation != self._keys.generation:
            if self._algorithm is None or looks_like_key(token):
                return await self._by_service_alone(token, digest, fresh=fresh, address=address)
            seen = await self._read(token, digest)
        now = self._clock()
        if not self._keys.are_fresh(now):
            # A cached key is returned immediately, and a fetch starts in the background.
            self._require_own()
            await self._keys.find(seen.kid)
        seen.token.require_time(now, self._leeway)
        if not fresh and isinstance(self._revocation, SignatureOnly):
            return seen.principal or await self._from_signature(token, seen)
        return await self._judge(token, digest, seen, fresh=fresh, address=address)

    async def warm(self) -> None:
        """Fetch the keys and subscribe to events before the first request. Raises Unavailable."""
        self._require_own()
        self._subscribed()
        if self._algorithm is not None:
            await self._keys.fetch()

    async def close(self) -> None:
        """Close connections and end the subscription. Can be called more than once."""
        if self._closed:
            return
        self._closed = True
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.end()
        await self._keys.close()
        http, self._http_client = self._http_client, None
        if http is not None and self._owner is owner():
            await http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _read(self, token: str, digest: bytes) -> SeenToken:
        """Verify the signature and read the claims."""
        self._require_own()
        algorithm = self._algorithm or ""
        kid = key_id_of(token, algorithm=algorithm)
        found = await self._keys.find(kid)
        signed = read_signed(
            token,
            found.keys[kid].jwk,
            algorithm=algorithm,
            issuer=self._issuer,
            audience=self._audience,
        )
        principal = None if signed.permissions is None else signed.principal(signed.permissions)
        seen = SeenToken(token=signed, kid=kid, generation=found.generation, principal=principal)
        self._seen.keep(digest, seen)
        return seen

    async def _from_signature(self, token: str, seen: SeenToken) -> Principal:
        """Return the caller of a token that omits its permissions."""

        async def load() -> Permissions:
            return (await self._questions.ask(token, seen.token)).principal.permissions

        self._require_own()
        permissions, may_be_kept = await permissions_from(load)
        principal = seen.token.principal(permissions)
        if may_be_kept:
            seen.principal = principal
        return principal

    async def _judge(
        self, token: str, digest: bytes, seen: SeenToken, *, fresh: bool, address: str | None
    ) -> Principal:
        """Check the token against the known revocations."""
        subscription = self._subscribed()
        if fresh or subscription is None:
            return await self._asked(token, digest, seen.token, fresh=fresh, address=address)
        verdict = subscription.state.verdict(seen.token, asked=seen.asked, now=self._clock())
        if verdict is Verdict.NO_CONNECTION:
            verdict = self._without_connection()
        if verdict is Verdict.REVOKED:
            raise TokenRefused("token_revoked")
        if verdict is Verdict.ACCEPT:
            if seen.by_events is not None:
                return seen.by_events
            principal = seen.principal or await self._from_signature(token, seen)
            found = replace(principal, checked="events")
            if seen.principal is not None:
                seen.by_events = found
            return found
        return await self._ask_once(token, digest, seen, subscription.state, address=address)

    async def _ask_once(
        self,
        token: str,
        digest: bytes,
        seen: SeenToken,
        state: RevocationState,
        *,
        address: str | None,
    ) -> Principal:
        """Query the service about a token that may be revoked, and cache the response."""
        number = state.number

        async def ask() -> Answer:
            return await self._questions.ask(token, seen.token)

        self._require_own()
        answer = await self._flights.run((digest, number), ask)
        answer.require_network(address)
        seen.by_events = replace(answer.principal, checked="events")
        seen.asked = number
        return answer.principal

    def _without_connection(self) -> Verdict:
        rule = self._revocation.on_gap if isinstance(self._revocation, Events) else "ask"
        if rule == "refuse":
            raise Unavailable(detail="No revocations are received at the moment.")
        return Verdict.ACCEPT if rule == "accept" else Verdict.ASK

    async def _by_service_alone(
        self, token: str, digest: bytes, *, fresh: bool, address: str | None
    ) -> Principal:
        """Verify credentials whose signature cannot be checked here: a key, or a token of HS256."""
        if looks_like_key(token):
            if parse_key(token) is None:
                raise TokenRefused("token_invalid")
        elif self._algorithm is None:
            access_token_header(token)
            claims = read_claims(
                unverified_claims(token), issuer=self._issuer, audience=self._audience
            )
            claims.require_time(self._clock(), self._leeway)
        return await self._asked(token, digest, None, fresh=fresh, address=address)

    async def _asked(
        self,
        token: str,
        digest: bytes,
        signed: AccessToken | None,
        *,
        fresh: bool,
        address: str | None,
    ) -> Principal:
        """Return the response of the service, or a cached one if that is allowed."""

        async def ask() -> Answer:
            return await self._ask_and_keep(token, digest, signed)

        self._require_own()
        if fresh or not isinstance(self._revocation, Introspection):
            answer = await ask()
        else:
            kept = self._answers.find(digest, self._clock())
            if isinstance(kept, TokenRefused):
                raise TokenRefused(kept.code, kept.status)
            answer = kept or await self._flights.run(digest, ask)
        answer.require_network(address)
        return answer.principal

    async def _ask_and_keep(self, token: str, digest: bytes, signed: AccessToken | None) -> Answer:
        asked_at = self._clock()
        try:
            answer = await self._questions.ask(token, signed)
        except TokenRefused as exc:
            self._answers.keep(digest, exc, asked_at=asked_at)
            raise
        self._answers.keep(digest, answer, asked_at=asked_at)
        return answer

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
            raise Unavailable(detail="This verifier is closed.")
        current = owner()
        if self._owner is not current:
            self._lock = threading.Lock()
            self._http_client = None
            self._flights = AsyncFlights()
            self._keys.renew()
            self._seen.renew()
            self._answers.renew()
            self._owner = current

    def _subscribed(self) -> Subscription | None:
        """Return this process's subscription to events, if the settings require one."""
        if not isinstance(self._revocation, Events):
            return None
        found = self._subscription
        if found is not None and found.is_own:
            return found
        self._require_own()
        with self._lock:
            if self._subscription is None or not self._subscription.is_own:
                self._subscription = subscribe(
                    self._revocation, leeway=self._leeway, clock=self._clock
                )
            return self._subscription


def _digest(token: str) -> bytes:
    """Return the SHA-256 of a token, the key of caches. Raises TokenRefused for other texts."""
    try:
        if len(token) <= MAX_TOKEN_LENGTH:
            return hashlib.sha256(token.encode("ascii")).digest()
    except UnicodeEncodeError:
        pass
    raise TokenRefused("token_invalid")
