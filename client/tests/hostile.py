"""A service that behaves as badly as a test wants, for what the real one cannot be made to do."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

ISSUER, AUDIENCE = "aima-user-service", "aima"
USER = "019a2f6e-3c1d-7b52-9d3e-5f0a4c7b8e21"
SESSION = "019a2f6e-3f77-7d10-b1a4-2c6e8f9a0b13"
KEYS = "/.well-known/jwks.json"
VERIFY = "/api/v1/auth/verify"
INTROSPECT = "/api/v1/auth/introspect"
TOKEN = "/api/v1/auth/token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a client has sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def bearer(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the service answers. `drop` closes the connection after so many bytes of the body."""

    status: int = 200
    document: Any = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_cut: bool = False
    has_correlation_id: bool = True

    @property
    def content(self) -> bytes:
        return json.dumps(self.document).encode() if self.body is None else self.body


def problem(status: int, code: str, **headers: str) -> Reply:
    document = {"status": status, "code": code, "title": code, "detail": code}
    return Reply(
        status=status,
        document=document,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


Behaviour = Callable[[Request], Reply]


def _not_found(_: Request) -> Reply:
    return problem(404, "not_found")


class SigningKey:
    """A key pair of the service."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self.private = ec.generate_private_key(ec.SECP256R1())

    @property
    def document(self) -> dict[str, Any]:
        public = ECAlgorithm(ECAlgorithm.SHA256).to_jwk(self.private.public_key(), as_dict=True)
        return {**public, "kid": self.kid, "alg": "ES256", "use": "sig"}


class HostileService:
    """Publishes keys, signs tokens, and answers each path as it was told."""

    def __init__(self) -> None:
        self.key = SigningKey("first")
        self.requests: list[Request] = []
        self.counts: Counter[str] = Counter()
        self._behaviours: dict[str, Behaviour] = {}
        self._released = threading.Event()
        self.answer(KEYS, self.published)
        self.answer(VERIFY, lambda _: Reply(document=self.verified()))
        self.answer(INTROSPECT, lambda _: Reply(document=self.introspected()))
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                service.handle(self)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 1024

            def handle_error(self, *_: object) -> None:
                pass  # Clients that give up are what the tests are about.

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, path: str, behaviour: Behaviour) -> None:
        """Answer requests to this path so from now on."""
        self._behaviours[path] = behaviour

    def published(self, _: Request) -> Reply:
        """Return the key set."""
        return Reply(document={"keys": [self.key.document]})

    def reply(self, path: str, reply: Reply) -> None:
        """Give the same reply to every request to this path."""
        self.answer(path, lambda _: reply)

    def hang(self, path: str) -> None:
        """Accept requests to this path and never answer."""

        def hang(_: Request) -> Reply:
            self._released.wait(60)
            return Reply(is_cut=True)

        self.answer(path, hang)

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        path = handler.path.partition("?")[0]
        request = Request(
            method=handler.command,
            path=handler.path,
            headers=dict(handler.headers.items()),
            body=handler.rfile.read(length),
        )
        self.requests.append(request)
        self.counts[path] += 1
        behaviour = self._behaviours.get(path, _not_found)
        reply = behaviour(request)
        if reply.is_cut:
            handler.close_connection = True
            return
        handler.send_response(reply.status)
        content = reply.content if reply.status != 204 else b""
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **({"X-Correlation-ID": "c0ffee"} if reply.has_correlation_id else {}),
            **reply.headers,
        }
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    def token(
        self,
        *,
        key: SigningKey | None = None,
        header: Mapping[str, Any] | None = None,
        without: tuple[str, ...] = (),
        **claims: Any,
    ) -> str:
        """Sign an access token as the service would, but for what the arguments say."""
        key = key or self.key
        now = int(time.time())
        payload = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": USER,
            "sid": SESSION,
            "jti": "9d0c8b7a",
            "iat": now,
            "nbf": now,
            "exp": now + 1800,
            "roles": ["user"],
            "permissions": ["media:read"],
            **claims,
        }
        for name in without:
            del payload[name]
        headers = {"typ": "at+jwt", "kid": key.kid, **(header or {})}
        return jwt.encode(payload, key.private, algorithm="ES256", headers=headers)

    def verified(self, **more: Any) -> dict[str, Any]:
        return {
            "active": True,
            "user_id": USER,
            "session_id": SESSION,
            "roles": ["user"],
            "permissions": ["media:read"],
            "expires_at": "2099-01-01T00:00:00Z",
            **more,
        }

    def introspected(self, **more: Any) -> dict[str, Any]:
        return {
            "active": True,
            "sub": USER,
            "sid": SESSION,
            "username": "robin",
            "scope": "media:read",
            "roles": ["user"],
            "token_type": "access",
            "exp": int(time.time()) + 1800,
            "iat": int(time.time()),
            "iss": ISSUER,
            "aud": AUDIENCE,
            "jti": "9d0c8b7a",
            **more,
        }

    def release(self) -> None:
        """Cut the connections of all requests that hang."""
        self._released.set()

    def close(self) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Clock:
    """A clock that a test moves. It begins at the present time."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += seconds
