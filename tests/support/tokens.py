"""Tokens without a service: real keys in a folder, and an application that only signs.

`sign` makes tokens that the service does not issue, with its own key.
"""

import base64
import hashlib
import hmac
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
from flask import Flask

from tests.support.databases import RUN_DIRECTORY
from userapi.authentication.key_folder import KeyFolder
from userapi.authentication.keys import KeyRing
from userapi.authentication.tokens import AccessGrant, AccessTokens, RefreshTokens
from userapi.clock import ManualClock
from userapi.sessions.authentication_level import PWD, authenticated_by
from userapi.settings import Settings
from userapi.wiring.keys import build_key_folder, build_key_ring
from userapi.wiring.tokens import build_access_tokens, build_refresh_tokens

ASYMMETRIC = ("ES256", "EdDSA", "RS256")
ALGORITHMS = ("HS256", *ASYMMETRIC)
USER_ID = UUID("0192f0c1-7a3b-7c4d-8e5f-001122334455")
SESSION_ID = UUID("0192f0c1-7a3b-7c4d-8e5f-66778899aabb")
GRANT = AccessGrant(
    user_id=USER_ID,
    session_id=SESSION_ID,
    session_version=3,
    roles=("user", "moderator"),
    permissions=("users:read",),
    authentication=authenticated_by(PWD, at=datetime(2026, 1, 31, 12, tzinfo=UTC)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStage:
    """The objects that issue and verify tokens, for one algorithm."""

    settings: Settings
    clock: ManualClock
    keys: KeyRing
    access: AccessTokens
    refresh: RefreshTokens
    app: Flask

    @property
    def folder(self) -> KeyFolder:
        """Return the key folder, as `flask keys` uses it."""
        return build_key_folder(self.settings, self.clock)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a valid access token, changed; `...` removes a claim."""
        now = int(self.clock.now().timestamp())
        claims = {
            "iss": self.settings.jwt_issuer,
            "aud": self.settings.jwt_audience,
            "sub": str(USER_ID),
            "sid": str(SESSION_ID),
            "sv": 3,
            "jti": "0192f0c1-7a3b-7c4d-8e5f-ccddeeff0011",
            "iat": now,
            "nbf": now,
            "exp": now + 600,
            "roles": ["user"],
            "permissions": ["users:read"],
        }
        return _changed(claims, changes)

    def header(self, **changes: Any) -> dict[str, Any]:
        """Return the header of a valid access token, changed; `...` removes a member."""
        header = {"alg": self.keys.algorithm, "typ": "at+jwt", "kid": self.keys.active().kid}
        return _changed(header, changes)

    def sign(self, claims: object = None, header: object = None, *, key: Any = None) -> str:
        """Return a token with the genuine signature over any JSON value, text or bytes."""
        claims = self.claims() if claims is None else claims
        header = self.header() if header is None else header
        body = f"{segment(header)}.{segment(claims)}"
        algorithm = jwt.get_algorithm_by_name(self.keys.algorithm)
        signature = algorithm.sign(body.encode(), key or self.keys.active().private)
        return f"{body}.{encoded(signature)}"


class RefreshForge(TokenStage):
    """The same stage for forged refresh tokens, with the key that signs them."""

    __slots__ = ()

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a valid refresh token, changed; `...` removes a claim."""
        own = {"gen": 7, "nbf": ..., "roles": ..., "permissions": ...}
        return TokenStage.claims(self, **own | changes)

    def header(self, **changes: Any) -> dict[str, Any]:
        """Return the header of a valid refresh token, changed; `...` removes a member."""
        return _changed({"alg": "HS256", "typ": "rt+jwt"}, changes)

    def sign(self, claims: object = None, header: object = None, *, key: Any = None) -> str:
        """Return a token with the genuine signature over any JSON value, text or bytes."""
        genuine = hmac.digest(self.settings.secret_key.encode(), b"refresh-token", "sha256")
        return hmac_signed(
            self.header() if header is None else header,
            self.claims() if claims is None else claims,
            key or genuine,
        )


def hmac_signed(header: object, claims: object, key: bytes) -> str:
    """Return a token signed by HS256 with any bytes as the key."""
    body = f"{segment(header)}.{segment(claims)}"
    return f"{body}.{encoded(hmac.digest(key, body.encode(), hashlib.sha256))}"


def segment(value: object) -> str:
    """Return a segment that contains a JSON value; text and bytes are not encoded as JSON."""
    if isinstance(value, str):
        value = value.encode()
    return encoded(
        value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    )


def encoded(raw: bytes) -> str:
    """Return base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@contextmanager
def token_stage(algorithm: str, instance_dir: Path, **environment: str) -> Iterator[TokenStage]:
    """Build a stage with keys of its own folder and enter the context of its application."""
    settings = Settings.from_env(
        {"ENVIRONMENT": "testing", "JWT_ALGORITHM": algorithm, **environment},
        instance_dir=instance_dir,
    )
    clock = ManualClock()
    if algorithm != "HS256" and "JWT_PRIVATE_KEY_FILE" not in environment:
        if not settings.keys_folder.exists():
            shutil.copytree(_generated_keys(algorithm), settings.keys_folder)
        build_key_folder(settings, clock).generate()
    stage = stage_of(settings, clock)
    with stage.app.app_context():
        yield stage


@cache
def _generated_keys(algorithm: str) -> Path:
    """Return a folder with the first keys: generating two for RS256 takes up to a second."""
    folder = Path(tempfile.mkdtemp(prefix="userapi-keys-", dir=os.environ.get(RUN_DIRECTORY)))
    settings = Settings.from_env(
        {"ENVIRONMENT": "testing", "JWT_ALGORITHM": algorithm}, instance_dir=folder
    )
    build_key_folder(settings, ManualClock()).generate()
    return settings.keys_folder


def stage_of(settings: Settings, clock: ManualClock) -> TokenStage:
    """Return the stage of another process with the same settings."""
    keys = build_key_ring(settings, clock)
    access = build_access_tokens(settings, clock, keys)
    app = Flask("tokens")
    access.configure(app)
    return TokenStage(
        settings=settings,
        clock=clock,
        keys=keys,
        access=access,
        refresh=build_refresh_tokens(settings, clock),
        app=app,
    )


def _changed(members: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: v for name, v in {**members, **changes}.items() if v is not ...}
