"""Issues and verifies access tokens and refresh tokens.

Flask-JWT-Extended signs access tokens and verifies signature, issuer, audience and algorithm. The
times are verified here, by the injected clock. `token_status` looks up whether the session is live.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import jwt
from flask_jwt_extended import JWTManager, create_access_token, decode_token
from flask_jwt_extended.exceptions import JWTExtendedException

from userapi.authentication.claims_cache import ClaimsCache
from userapi.authentication.key_files import SigningKey
from userapi.authentication.keys import KeyRing
from userapi.authentication.refusals import TokenExpired, TokenInvalid
from userapi.authentication.token_claims import (
    MAX_TOKEN_LENGTH,
    AccessClaims,
    ClaimReader,
    RefreshClaims,
    require_type,
    unverified_header,
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
    """A token, its expiry and its id, and whether it is too long for its permissions."""

    token: str
    expires_at: datetime
    jti: str
    permissions_omitted: bool = False


@dataclass(frozen=True, slots=True)
class _Signature:
    """The subject of a token and the key that signs it, which its header names."""

    subject: str
    key: SigningKey


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
        self._cache = ClaimsCache()

    def configure(self, app: "Flask") -> None:
        """Configure Flask-JWT-Extended with algorithm, keys, issuer and audience."""
        app.config.update(
            JWT_ALGORITHM=self._keys.algorithm,
            JWT_DECODE_ALGORITHMS=[self._keys.algorithm],
            JWT_ENCODE_ISSUER=self._issuer,
            JWT_DECODE_ISSUER=self._issuer,
            JWT_ENCODE_AUDIENCE=self._audience,
            JWT_DECODE_AUDIENCE=self._audience,
            JWT_DECODE_LEEWAY=_ANY_TIME,
            JWT_TOKEN_LOCATION=["headers"],
            JWT_COOKIE_CSRF_PROTECT=False,
        )
        manager = JWTManager(app)
        manager.user_identity_loader(lambda signature: signature.subject)
        manager.encode_key_loader(lambda signature: signature.key.private)
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
        token = _sign(key, grant.user_id, {**claims, **named})
        omitted = len(token) > self._max_bytes
        if omitted:
            token = _sign(key, grant.user_id, {**claims, "permissions_omitted": True})
        return IssuedToken(token, datetime.fromtimestamp(expires_at, UTC), jti, omitted)

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
            self._cache.remove(token)
            raise TokenExpired()
        if max(claims.issued_at, claims.not_before) > now + LEEWAY_SECONDS:
            raise TokenInvalid()
        return claims

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


def _sign(key: SigningKey, user_id: UUID, claims: Mapping[str, Any]) -> str:
    token: str = create_access_token(
        identity=_Signature(str(user_id), key),
        additional_claims=dict(claims),
        additional_headers={"typ": ACCESS_TYPE, "kid": key.kid},
    )
    return token


class RefreshTokens:
    """Issues and verifies refresh tokens.

    They are deterministic: a session at a generation has one token, so the service can return a
    successor again without storing its text. Only this service reads them, so a key of their own
    signs them, whatever algorithm signs access tokens (docs/decisions/0002, 0011).
    """

    def __init__(self, *, clock: Clock, issuer: str, audience: str, secret_key: str) -> None:
        self._clock = clock
        self._issuer = issuer
        self._audience = audience
        self._key = hmac.digest(secret_key.encode(), b"refresh-token", "sha256")

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
        token = jwt.encode(
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
            },
            self._key,
            algorithm="HS256",
            headers={"typ": REFRESH_TYPE},
        )
        return IssuedToken(token, expires_at, jti)

    def looks_like_refresh_token(self, token: str) -> bool:
        """Return whether the header, which is not verified, names the type of refresh tokens."""
        try:
            return unverified_header(token).get("typ") == REFRESH_TYPE
        except TokenInvalid:
            return False

    def verify(self, token: str) -> RefreshClaims:
        """Return the claims of a token. Raises TokenInvalid, TokenExpired."""
        require_type(token, REFRESH_TYPE)
        try:
            payload = jwt.decode(
                token,
                self._key,
                algorithms=["HS256"],
                issuer=self._issuer,
                audience=self._audience,
                options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        except (jwt.PyJWTError, ValueError, OverflowError) as exc:
            raise TokenInvalid() from exc
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
