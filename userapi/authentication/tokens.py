"""Access tokens and refresh tokens: how they are made, and the one validator of each.

Flask-JWT-Extended signs access tokens and checks signature, issuer, audience and algorithm. Times
are checked here, because the clock is injected. Whether a token's session still lives is asked
elsewhere.
"""

import base64
import hashlib
import hmac
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

import jwt
from flask_jwt_extended import JWTManager, create_access_token, decode_token
from flask_jwt_extended.exceptions import JWTExtendedException

from userapi.authentication.key_files import SigningKey
from userapi.authentication.keys import KeyRing
from userapi.authentication.refusals import TokenExpired, TokenInvalid
from userapi.clock import Clock
from userapi.infrastructure.database import new_id
from userapi.settings import Settings

if TYPE_CHECKING:
    from flask import Flask

ACCESS_TYPE = "at+jwt"  # RFC 9068 §2.1
REFRESH_TYPE = "rt+jwt"
LEEWAY_SECONDS = 10
MAXIMUM_TOKEN_LENGTH = 16 * 1024
REMEMBERED_TOKENS = 4096
LATEST_TIMESTAMP = 253402300799  # The last second of the year 9999.
# RFC 7515 §7.1. PyJWT also takes padding, which would give one token several spellings.
COMPACT_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# Far more than any token's life: PyJWT looks at the machine's clock and lets everything pass, so
# that exp, nbf and iat are judged by the injected clock alone, with LEEWAY_SECONDS.
_ANY_TIME = timedelta(days=100 * 365)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessGrant:
    """What an access token is to say."""

    user_id: UUID
    session_id: UUID
    session_version: int
    roles: tuple[str, ...]
    permissions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token, when it ends and its id."""

    token: str
    expires_at: datetime
    jti: str


@dataclass(frozen=True, slots=True)
class _Signature:
    """For whom a token is signed, and with which key: its header must name the same one."""

    subject: str
    key: SigningKey


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessClaims:
    """What a verified access token says."""

    user_id: UUID
    session_id: UUID
    session_version: int
    jti: str
    roles: tuple[str, ...]
    permissions: tuple[str, ...] | None
    """What the token says; None where it would have become too long to be sent."""
    issued_at: int
    not_before: int
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshClaims:
    """What a verified refresh token says."""

    user_id: UUID
    session_id: UUID
    session_version: int
    generation: int
    jti: str
    issued_at: int
    expires_at: int


class AccessTokens:
    """Issues and verifies access tokens (RFC 7519, RFC 8725, RFC 9068)."""

    def __init__(self, settings: Settings, clock: Clock, keys: KeyRing) -> None:
        self._clock = clock
        self._keys = keys
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._lifetime = timedelta(minutes=settings.jwt_access_token_expire_minutes)
        self._most_bytes = settings.jwt_max_bytes
        self._remembered = _RememberedTokens()

    def configure(self, app: "Flask") -> None:
        """Tell Flask-JWT-Extended of algorithm, keys, issuer and audience."""
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
        """Return a token that says what `grant` does, from now on.

        Without the permissions where it would be longer than JWT_MAX_BYTES: servers and proxies
        refuse requests with long headers. Raises Unavailable where there is no key to sign with.
        """
        now = int(self._clock.now().timestamp())
        expires_at = now + int(self._lifetime.total_seconds())
        jti = str(new_id())
        # Asked once: a rotation between two answers would put the id of another key in the header.
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
        token = _sign(key, grant.user_id, {**claims, "permissions": list(grant.permissions)})
        if len(token) > self._most_bytes:
            token = _sign(key, grant.user_id, {**claims, "permissions_omitted": True})
        return IssuedToken(token, datetime.fromtimestamp(expires_at, UTC), jti)

    def verify(self, token: str) -> AccessClaims:
        """Return what a token says. Raises TokenInvalid, TokenExpired.

        A token that was verified once is remembered until it expires or the keys change.
        """
        if len(token) > MAXIMUM_TOKEN_LENGTH:
            raise TokenInvalid()
        generation = self._keys.generation
        claims = self._remembered.find(token, generation=generation)
        if claims is None:
            claims = self._decode(token)
            self._remembered.add(token, claims, generation=generation)
        now = self._clock.now().timestamp()
        if claims.expires_at + LEEWAY_SECONDS <= now:
            self._remembered.forget(token)
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
        _require_header(token, ACCESS_TYPE)
        try:
            payload = decode_token(token)
        except (jwt.PyJWTError, JWTExtendedException, ValueError, OverflowError) as exc:
            raise TokenInvalid() from exc
        read = _ClaimReader(payload)
        return AccessClaims(
            user_id=read.uuid("sub"),
            session_id=read.uuid("sid"),
            session_version=read.integer("sv"),
            jti=read.text("jti"),
            roles=read.texts("roles"),
            permissions=read.permissions(),
            issued_at=read.timestamp("iat"),
            not_before=read.timestamp("nbf"),
            expires_at=read.timestamp("exp"),
        )


def _sign(key: SigningKey, user_id: UUID, claims: Mapping[str, Any]) -> str:
    token: str = create_access_token(
        identity=_Signature(str(user_id), key),
        additional_claims=dict(claims),
        additional_headers={"typ": ACCESS_TYPE, "kid": key.kid},
    )
    return token


class _RememberedTokens:
    """The claims of tokens that were verified with the keys of one generation.

    Bounded, the longest unused go first. Tokens stand there as hashes: short, and useless to
    whoever reads the memory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._generation = 0
        self._claims: OrderedDict[bytes, AccessClaims] = OrderedDict()

    def find(self, token: str, *, generation: int) -> AccessClaims | None:
        key = self._key_of(token)
        with self._lock:
            if generation != self._generation:
                self._claims.clear()
                self._generation = generation
            claims = self._claims.get(key)
            if claims is not None:
                self._claims.move_to_end(key)
        return claims

    def add(self, token: str, claims: AccessClaims, *, generation: int) -> None:
        with self._lock:
            if generation != self._generation:
                return  # Verified with keys that another thread has seen replaced.
            self._claims[self._key_of(token)] = claims
            if len(self._claims) > REMEMBERED_TOKENS:
                self._claims.popitem(last=False)

    def forget(self, token: str) -> None:
        with self._lock:
            self._claims.pop(self._key_of(token), None)

    @staticmethod
    def _key_of(token: str) -> bytes:
        # A lone surrogate has no UTF-8; such a text is refused when it is decoded.
        return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


class RefreshTokens:
    """Issues and verifies refresh tokens.

    They are deterministic: the same session at the same generation always has the same token, so
    that a successor can be given again without its text being kept anywhere. Only this service
    reads them, so they are signed by a key of its own, whatever family signs access tokens.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._clock = clock
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._key = hmac.digest(settings.secret_key.encode(), b"refresh-token", "sha256")

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

    def is_one(self, token: str) -> bool:
        """Tell whether a text says of itself that it is a refresh token."""
        try:
            return _header_of(token).get("typ") == REFRESH_TYPE
        except TokenInvalid:
            return False

    def verify(self, token: str) -> RefreshClaims:
        """Return what a token says. Raises TokenInvalid, TokenExpired."""
        _require_header(token, REFRESH_TYPE)
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
        read = _ClaimReader(payload)
        claims = RefreshClaims(
            user_id=read.uuid("sub"),
            session_id=read.uuid("sid"),
            session_version=read.integer("sv"),
            generation=read.integer("gen"),
            jti=read.text("jti"),
            issued_at=read.timestamp("iat"),
            expires_at=read.timestamp("exp"),
        )
        if claims.expires_at <= self._clock.now().timestamp():
            raise TokenExpired()
        return claims


class _ClaimReader:
    """Reads claims of the right type, and refuses the token for any other."""

    def __init__(self, payload: Mapping[str, Any]) -> None:
        self._payload = payload

    def text(self, name: str) -> str:
        value = self._payload.get(name)
        if not isinstance(value, str) or not value:
            raise TokenInvalid()
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._payload.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise TokenInvalid()
        return tuple(value)

    def permissions(self) -> tuple[str, ...] | None:
        """Return the permissions; None for a token that says of itself that it omits them."""
        if "permissions_omitted" not in self._payload:
            return self.texts("permissions")
        if self._payload["permissions_omitted"] is not True or "permissions" in self._payload:
            raise TokenInvalid()
        return None

    def integer(self, name: str) -> int:
        value = self._payload.get(name)
        if type(value) is not int or not 0 <= value <= LATEST_TIMESTAMP:
            raise TokenInvalid()
        return value

    def timestamp(self, name: str) -> int:
        return self.integer(name)

    def uuid(self, name: str) -> UUID:
        text = self.text(name)
        try:
            value = UUID(text)
        except ValueError as exc:
            raise TokenInvalid() from exc
        # UUID() also reads braces, urn:uuid: and no hyphens at all.
        if str(value) != text:
            raise TokenInvalid()
        return value


def _header_of(token: str) -> dict[str, Any]:
    """Return the header of what claims to be a token; nothing in it is believed yet."""
    if len(token) > MAXIMUM_TOKEN_LENGTH or not COMPACT_FORM.fullmatch(token):
        raise TokenInvalid()
    return _strict_object(token.split(".")[0])


def _require_header(token: str, token_type: str) -> None:
    """Refuse a token of another type, or one that asks for extensions (RFC 7515 §4.1.11).

    Type: RFC 8725 §3.11. Keys that a header brings along (jku, jwk, x5u, x5c) are never looked at.
    """
    header = _header_of(token)
    typ = header.get("typ")
    if not isinstance(typ, str) or typ.lower().removeprefix("application/") != token_type:
        raise TokenInvalid()
    if "crit" in header or "b64" in header:
        raise TokenInvalid()
    _strict_object(token.split(".")[1])


def _strict_object(segment: str) -> dict[str, Any]:
    """Return the JSON object of a segment; one that two readers could read differently is none."""
    try:
        padded = segment + "=" * (-len(segment) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
        found = json.loads(
            text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as exc:
        raise TokenInvalid() from exc
    if not isinstance(found, dict):
        raise TokenInvalid()
    return found


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
