"""A small media service that believes the access tokens of the User Management Service.

Reading verifies the token by itself, with the published keys, and asks nobody. Deleting asks the
service as well, because there a session that has ended must count at once.

    pip install "pyjwt[crypto]"
    USERS_URL=http://127.0.0.1:8000 PORT=8080 python verify_tokens.py
"""

import json
import os
import threading
import time
import urllib.error
import urllib.request
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt

USERS_URL = os.environ.get("USERS_URL", "http://127.0.0.1:8000")
ISSUER = os.environ.get("ISSUER", "aima-user-service")
AUDIENCE = os.environ.get("AUDIENCE", "aima")
ALGORITHM = os.environ.get("ALGORITHM", "ES256")  # Ours to choose, never the token's.

# What deleting requires: how recently the user proved who they are, and how strongly (RFC 9470).
STEP_UP_SECONDS = int(os.environ.get("STEP_UP_SECONDS", "900"))
STEP_UP_LEVEL = os.environ.get("STEP_UP_LEVEL", "aal1")
LEVELS = ("aal1", "aal2")  # The values of `acr`, the weakest first.

KEYS_FRESH_SECONDS = 300  # As long as the answer's Cache-Control allows.
KEYS_USABLE_SECONDS = 3600  # While the service is away, the keys of before go on.
MIN_SECONDS_BETWEEN_FETCHES = 10  # Whoever sends made-up kids does not make us ask each time.
REQUIRED = ["iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp", "roles"]


class Refused(Exception):
    """The token is not good; the text says why, for the log."""


class StepUpNeeded(Exception):
    """The token is good, but its user must authenticate again, or more strongly (RFC 9470)."""

    def __init__(self, max_age: int | None, acr: str | None) -> None:
        super().__init__("a more recent or stronger authentication is required")
        self.max_age, self.acr = max_age, acr

    @property
    def challenge(self) -> str:
        """Return the value of WWW-Authenticate (RFC 9470 section 3)."""
        wanted = {"error": "insufficient_user_authentication", "error_description": str(self)}
        if self.max_age is not None:
            wanted["max_age"] = str(self.max_age)
        if self.acr is not None:
            wanted["acr_values"] = self.acr
        return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in wanted.items())


class Unsure(Exception):
    """Nobody can say at the moment whether the token is good: a 503 and never a 401."""


class PublishedKeys:
    """The public keys of the service, fetched when they are needed and kept for a while."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")

    def find(self, kid: str) -> jwt.PyJWK:
        """Return the key of this id. Raises Refused, Unsure."""
        with self._lock:
            now = time.monotonic()
            stale = now - self._fetched_at > KEYS_FRESH_SECONDS
            # A kid that is new to us is what the service signs with since it has rotated its keys.
            if stale or kid not in self._keys:
                if now - self._tried_at > MIN_SECONDS_BETWEEN_FETCHES:
                    self._tried_at = now
                    self._fetch(now)
            if now - self._fetched_at > KEYS_USABLE_SECONDS:
                raise Unsure("the keys cannot be fetched")
            if kid not in self._keys:
                raise Refused("unknown key")
            return self._keys[kid]

    def _fetch(self, now: float) -> None:
        try:
            with urllib.request.urlopen(self._url, timeout=3) as answer:
                found = jwt.PyJWKSet.from_dict(json.load(answer)).keys
        except (OSError, ValueError, jwt.PyJWTError):
            return  # The keys of before are tried as long as they are usable.
        self._keys = {key.key_id: key for key in found if key.key_id}
        self._fetched_at = now


keys = PublishedKeys(f"{USERS_URL}/.well-known/jwks.json")


def verify(token: str, *, max_age: int | None = None, acr: str | None = None) -> dict:
    """Return what a token says, by its signature alone. Raises Refused, StepUpNeeded, Unsure.

    `max_age` is how many seconds ago the user may have authenticated at most, and `acr` the level
    that is needed at least. A token that would be too long to send leaves its permissions out and
    has the claim `permissions_omitted`.
    """
    try:
        header = jwt.get_unverified_header(token)
        # A refresh token is signed as well; only this type opens an API (RFC 9068).
        if str(header.get("typ")).lower().removeprefix("application/") != "at+jwt":
            raise Refused("not an access token")
        said = jwt.decode(
            token,
            keys.find(str(header.get("kid"))),
            algorithms=[ALGORITHM],
            issuer=ISSUER,
            audience=AUDIENCE,
            leeway=10,
            options={"require": REQUIRED},
        )
    except jwt.PyJWTError as exc:
        raise Refused(str(exc)) from exc
    if ("permissions" in said) == (said.get("permissions_omitted") is True):
        raise Refused("the permissions are missing")
    # Tokens of earlier releases lack these claims: their users authenticate again.
    is_too_old = max_age is not None and time.time() - said.get("auth_time", 0) > max_age
    is_too_weak = acr is not None and LEVELS.index(said.get("acr", LEVELS[0])) < LEVELS.index(acr)
    if is_too_old or is_too_weak:
        raise StepUpNeeded(max_age, acr if is_too_weak else None)
    return said


def verify_now(token: str, *, max_age: int | None = None, acr: str | None = None) -> dict:
    """Return what the service says of a token at this moment.

    Raises Refused, StepUpNeeded, Unsure.
    """
    verify(token, max_age=max_age, acr=acr)  # Made-up tokens cost no request.
    request = urllib.request.Request(
        f"{USERS_URL}/api/v1/auth/verify", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=3) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as exc:
        if exc.code == 401:
            raise Refused(json.load(exc)["code"]) from exc
        raise Unsure(f"the service answered {exc.code}") from exc
    except OSError as exc:
        raise Unsure("the service is away") from exc


class Media(BaseHTTPRequestHandler):
    """What this service does for those who may."""

    def do_GET(self) -> None:
        """Show who is asking."""
        self._answer_to(verify, permission=None)

    def do_DELETE(self) -> None:
        """Delete something: this needs a permission, a live session and a recent authentication."""
        check = partial(verify_now, max_age=STEP_UP_SECONDS, acr=STEP_UP_LEVEL)
        self._answer_to(check, permission="media:delete")

    def _answer_to(self, check, *, permission: str | None) -> None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return self._send(401, {"error": "a token is needed"})
        try:
            said = check(token)
            if permission is not None and "permissions" not in said:
                said = verify_now(token)  # The service knows what the token leaves out.
        except Refused as exc:
            return self._send(401, {"error": str(exc)})
        except StepUpNeeded as exc:
            body = {"error": "insufficient_user_authentication", "max_age": exc.max_age}
            return self._send(401, body, challenge=exc.challenge)
        except Unsure as exc:
            return self._send(503, {"error": str(exc)})
        if permission is not None and not allows(said["permissions"], permission):
            return self._send(403, {"error": f"needs {permission}"})
        self._send(200, {"user_id": said.get("sub") or said["user_id"]})

    def _send(self, status: int, body: dict, *, challenge: str = "Bearer") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status == 401:
            self.send_header("WWW-Authenticate", challenge)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


def allows(permissions: list[str], wanted: str) -> bool:
    """Tell whether these permissions hold the wanted one: `media:*` holds all of media, `*` all."""
    return not {"*", wanted.partition(":")[0] + ":*", wanted}.isdisjoint(permissions)


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8080"))
    ThreadingHTTPServer(("127.0.0.1", port), Media).serve_forever()
