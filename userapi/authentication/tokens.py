"""Issues and verifies access tokens and refresh tokens.

Flask-JWT-Extended verifies signature, issuer, audience and algorithm of access tokens. The times
are verified here, by the injected clock. `token_status` looks up whether the session is live.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import jwt
from flask_jwt_extended import JWTManager, decode_token
from flask_jwt_extended.exceptions import JWTExtendedException

from userapi.authentication.claims_cache import ClaimsCache
from userapi.authentication.compact_jws import CompactJws, SecretJws
from userapi.authentication.key_files import SigningKey
from userapi.authentication.keys import KeyRing
from userapi.authentication.refusals import TokenExpired, TokenInvalid
from userapi.authentication.token_claims import (
    MAX_TOKEN_LENGTH,
    AccessClaims,
    ClaimReader,
    RefreshClaims,
    require_type,
)
from userapi.clock import Clock
from userapi.infrastructure.database import new_id
from userapi.sessions.authentication_level import Authentication

if TYPE_CHECKING:
    from flask import Flask

ACCESS_TYPE = "at+jwt"  # RFC 9068 §2.1
REFRESH_TYPE = "rt+jwt"
LEEWAY_SECONDS = 10
# Far longer than any token's lifetime: PyJWT compares with the system clock and accepts everything,
# so that only the injected clock decides on exp, nbf and iat, with LEEWAY_SECONDS.
_ANY_TIME = timedelta(days=100 * 365)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessGrant:
    """The content of an access token to issue.

    For a service, `user_id` is the id of its account and `session_id` that of its API key.
    `ends_at` is the latest expiry; None does not limit the lifetime.
    """

    user_id: UUID
    session_id: UUID
    session_version: int
    roles: tuple[str, ...]
    permissions: tuple[str, ...]
    authentication: Authentication | None = None
    """None for a service."""
    for_service: bool = False
    scope_requested: bool = False
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token, its times and its id, and whether it is too long for its permissions."""

    token: str
    issued_at: datetime
    expires_at: datetime
    jti: str
    permissions_omitted: bool = False

    @property
    def lifetime_seconds(self) -> int:
        """The time from `iat` to `exp`. Both are whole seconds, so a later clock would differ."""
        return int((self.expires_at - self.issued_at).total_seconds())


class AccessTokens:
    """Issues and verifies access tokens (RFC 7519, RFC 8725, RFC 9068)."""

    def __init__(
        self,
        *,
        clock: Clock,
        keys: KeyRing,
        issuer: str,
        audience: str,
        lifetime: timedelta,
        max_bytes: int,
    ) -> None:
        self._clock = clock
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._lifetime = lifetime
        self._max_bytes = max_bytes
        self._cache = ClaimsCache(clock=clock)
        self._signing: tuple[SigningKey, CompactJws] | None = None

    def configure(self, app: "Flask") -> None:
        """Configure Flask-JWT-Extended with algorithm, keys, issuer and audience."""
        app.config.update(
            JWT_ALGORITHM=self._keys.algorithm,
            JWT_DECODE_ALGORITHMS=[self._keys.algorithm],
            JWT_DECODE_ISSUER=self._issuer,
            JWT_DECODE_AUDIENCE=self._audience,
            JWT_DECODE_LEEWAY=_ANY_TIME,
            JWT_TOKEN_LOCATION=["headers"],
            JWT_COOKIE_CSRF_PROTECT=False,
        )
        manager = JWTManager(app)
        manager.decode_key_loader(self._verifying_key)

    def issue(self, grant: AccessGrant) -> IssuedToken:
        """Return a token with the content of `grant`, valid from now on.

        If it would be longer than JWT_MAX_BYTES, it omits the permissions and the scope: servers
        and proxies reject requests with long headers. Raises Unavailable if there is no key to sign
        with.
        """
        now = int(self._clock.now().timestamp())
        expires_at = now + int(self._lifetime.total_seconds())
        if grant.ends_at is not None:
            expires_at = min(expires_at, int(grant.ends_at.timestamp()))
        jti = str(new_id())
        # Read once: after a rotation in between, the header would name another key.
        key = self._keys.active()
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(grant.user_id),
            "type": "access",
            "fresh": False,
            "sid": str(grant.session_id),
            "sv": grant.session_version,
            "jti": jti,
            "iat": now,
            "nbf": now,
            "exp": expires_at,
            "roles": list(grant.roles),
        }
        if grant.authentication is not None:
            claims |= {
                "auth_time": int(grant.authentication.authenticated_at.timestamp()),
                "acr": grant.authentication.acr,
                "amr": list(grant.authentication.amr),
            }
        named: dict[str, Any] = {"permissions": list(grant.permissions)}
        if grant.for_service:
            claims |= {"client_id": str(grant.user_id), "key_id": str(grant.session_id)}
            if grant.scope_requested:
                claims["scope_requested"] = True
            if grant.permissions:
                named["scope"] = " ".join(grant.permissions)
        jws = self._jws_of(key)
        token = jws.sign({**claims, **named})
        omitted = len(token) > self._max_bytes
        if omitted:
            token = jws.sign({**claims, "permissions_omitted": True})
        issued_at, ends_at = (datetime.fromtimestamp(at, UTC) for at in (now, expires_at))
        return IssuedToken(token, issued_at, ends_at, jti, omitted)

    def verify(self, token: str) -> AccessClaims:
        """Return the claims of a token. Raises TokenInvalid, TokenExpired.

        The claims are cached until the token expires or the keys change.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise TokenInvalid()
        generation = self._keys.generation
        claims = self._cache.find(token, generation=generation)
        if claims is None:
            claims = self._decode(token)
            self._cache.add(token, claims, generation=generation)
        now = self._clock.now().timestamp()
        if claims.expires_at + LEEWAY_SECONDS <= now:
            raise TokenExpired()
        if max(claims.issued_at, claims.not_before) > now + LEEWAY_SECONDS:
            raise TokenInvalid()
        return claims

    def _jws_of(self, key: SigningKey) -> CompactJws:
        if self._signing is None or self._signing[0] is not key:
            header = {"typ": ACCESS_TYPE, "kid": key.kid}
            jws = CompactJws(algorithm=self._keys.algorithm, key=key.private, header=header)
            self._signing = (key, jws)
        return self._signing[1]

    def _verifying_key(self, header: Mapping[str, Any], _payload: Mapping[str, Any]) -> Any:
        key = self._keys.verifying(header.get("kid"))
        if key is None:
            raise TokenInvalid()
        return key.public

    def _decode(self, token: str) -> AccessClaims:
        require_type(token, ACCESS_TYPE)
        try:
            payload = decode_token(token)
        except (jwt.PyJWTError, JWTExtendedException, ValueError, OverflowError) as exc:
            raise TokenInvalid() from exc
        read = ClaimReader(payload)
        return AccessClaims(
            user_id=read.uuid("sub"),
            session_id=read.uuid("sid"),
            session_version=read.integer("sv"),
            jti=read.text("jti"),
            roles=read.texts("roles"),
            permissions=read.permissions(),
            authentication=read.authentication(),
            issued_at=read.integer("iat"),
            not_before=read.integer("nbf"),
            expires_at=read.integer("exp"),
            client=read.client(),
        )


class RefreshTokens:
    """Issues and verifies refresh tokens.

    They are deterministic: a session at a generation has one token, so the service can return a
    successor again without storing its text. Only this service reads them, so a separate key signs
    them, independent of the algorithm of access tokens (docs/decisions/0002, 0011).
    """

    def __init__(self, *, clock: Clock, issuer: str, audience: str, secret_key: str) -> None:
        self._clock = clock
        self._issuer = issuer
        self._audience = audience
        self._key = hmac.digest(secret_key.encode(), b"refresh-token", "sha256")
        self._jws = SecretJws(secret=self._key, header={"typ": REFRESH_TYPE})

    def issue(
        self,
        *,
        user_id: UUID,
        session_id: UUID,
        session_version: int,
        generation: int,
        rotated_at: datetime,
        expires_at: datetime,
    ) -> IssuedToken:
        """Return the token of a session at a generation."""
        identity = f"{session_id}.{session_version}.{generation}".encode()
        jti = hmac.new(self._key, identity, hashlib.sha256).hexdigest()[:32]
        token = self._jws.sign(
            {
                "iss": self._issuer,
                "aud": self._audience,
                "sub": str(user_id),
                "sid": str(session_id),
                "sv": session_version,
                "gen": generation,
                "jti": jti,
                "iat": int(rotated_at.timestamp()),
                "exp": int(expires_at.timestamp()),
            }
        )
        return IssuedToken(token, rotated_at, expires_at, jti)

    def looks_like_refresh_token(self, token: str) -> bool:
        """Return whether a token has the header of refresh tokens. It may be forged."""
        return self._jws.has_header(token)

    def verify(self, token: str) -> RefreshClaims:
        """Return the claims of a token. Raises TokenInvalid, TokenExpired."""
        payload = self._jws.verify(token)
        if payload.get("iss") != self._issuer or payload.get("aud") != self._audience:
            raise TokenInvalid()
        read = ClaimReader(payload)
        claims = RefreshClaims(
            user_id=read.uuid("sub"),
            session_id=read.uuid("sid"),
            session_version=read.integer("sv"),
            generation=read.integer("gen"),
            jti=read.text("jti"),
            issued_at=read.integer("iat"),
            expires_at=read.integer("exp"),
        )
        if claims.expires_at <= self._clock.now().timestamp():
            raise TokenExpired()
        return claims
