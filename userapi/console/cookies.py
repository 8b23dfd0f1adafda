"""Browser sessions: a random id in a cookie, and its data in Redis or in files.

Only the pages have sessions. Visitors who are not signed in have no data on the server: the seed of
their CSRF tokens and the messages for the next page are in a signed cookie, which they can read.
Between the password and the second step the session is on the server, so that the mfa_token is in
no cookie. If Redis is configured and unavailable, so are the pages for signed-in users. The API is
not affected.

Only this module uses private names of Flask-Session: those by which a store is implemented, because
its own store for Redis accepts no Redis Cluster and asks no Sentinel again for the master; and
`_get_store_id`, because it has no public way to delete a stored session without saving another.
"""

import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec
import orjson
import structlog
from cachelib import FileSystemCache
from flask import Flask, Request, Response, render_template, request
from flask.sessions import SecureCookieSessionInterface, SessionMixin
from flask_session.base import ServerSideSession, ServerSideSessionInterface
from flask_session.cachelib import CacheLibSessionInterface
from flask_wtf import CSRFProtect
from itsdangerous import BadData

from userapi.api.problems import handle_service_error
from userapi.errors import Unavailable
from userapi.infrastructure.encryption import key_id
from userapi.infrastructure.redis_commands import Command, RedisClient, command
from userapi.private_files import make_folder
from userapi.settings import Settings

log = structlog.get_logger(__name__)

PREFIX = "/console/"
STATIC = f"{PREFIX}static/"
KEY_PREFIX = "browser:"
TIMEOUT_SECONDS = 0.5
BREAKER_SECONDS = 0.1
# Long enough to type a password. Every visitor of the sign-in page has this cookie.
VISITOR_LIFETIME = timedelta(hours=2)
# `_flashes` is where Flask stores the messages of `flash`.
VISITOR_KEYS = ("csrf_token", "_flashes")
# The token of a sign-in whose second step is open.
MFA_TOKEN = "mfa_token"
# A cookie holds 4 KB.
MAX_MESSAGES = 5
MAX_FILES = 10_000

csrf = CSRFProtect()


class StoreUnavailable(Unavailable):
    """The store of the browser sessions is unavailable."""

    title = "Browser sessions are temporarily unavailable. Try again."


class _PageSession(ServerSideSession):  # type: ignore[misc]  # has no annotations
    """The session of a page; `stored` if it was read from the server's store."""

    stored = False


class _UnavailableSession(_PageSession):
    """The session of a request whose stored session cannot be read."""


class _VisitorCookies(SecureCookieSessionInterface):
    """The signed cookie of visitors who are not signed in."""

    salt = "console-visitor"

    def __init__(self, app: Flask) -> None:
        serializer = self.get_signing_serializer(app)
        if serializer is None:
            raise RuntimeError("SECRET_KEY is not set.")
        self._serializer = serializer
        self._name = f"{self.get_cookie_name(app)}-visitor"

    def read(self, request: Request) -> dict[str, Any]:
        """Return the content of the cookie; empty if it is missing, expired or not signed by us."""
        try:
            stored = self._serializer.loads(
                request.cookies.get(self._name, ""),
                max_age=int(VISITOR_LIFETIME.total_seconds()),
            )
        except BadData:
            return {}
        return {name: stored[name] for name in VISITOR_KEYS if name in stored}

    def write(self, app: Flask, session: Mapping[str, Any], response: Response) -> None:
        """Store the part of a session that visitors need in the cookie."""
        stored = {name: session[name] for name in VISITOR_KEYS if name in session}
        if "_flashes" in stored:
            stored["_flashes"] = stored["_flashes"][-MAX_MESSAGES:]
        response.set_cookie(self._name, str(self._serializer.dumps(stored)), **self._options(app))

    def delete(self, app: Flask, request: Request, response: Response) -> None:
        """Delete the cookie, if the browser has it."""
        if self._name in request.cookies:
            response.set_cookie(self._name, "", max_age=0, expires=0, **self._options(app))

    def _options(self, app: Flask) -> dict[str, Any]:
        return {
            "domain": self.get_cookie_domain(app),
            "path": self.get_cookie_path(app),
            "httponly": self.get_cookie_httponly(app),
            "secure": self.get_cookie_secure(app),
            "samesite": self.get_cookie_samesite(app),
        }


class _PageSessions(ServerSideSessionInterface):  # type: ignore[misc]  # has no annotations
    """Opens sessions for pages only, and stores those of signed-in users."""

    session_class = _PageSession

    def __init__(self, app: Flask, *, second_step_lifetime: timedelta, **options: Any) -> None:
        super().__init__(app, **options)
        self._visitors = _VisitorCookies(app)
        self._second_step_lifetime = second_step_lifetime

    def open_session(self, app: Flask, request: Request) -> Any:
        """Return the session of a page, an empty one of a static file, None for other requests.

        The session is opened before Flask matches the URL, so there is no endpoint yet.
        """
        if not request.path.startswith(PREFIX):
            return None
        if request.path.startswith(STATIC):
            # Pages about errors read it. It is never saved.
            return _PageSession(sid=secrets.token_urlsafe(self.sid_length))
        session_id = request.cookies.get(self.get_cookie_name(app))
        if session_id:
            try:
                session = super().open_session(app, request)
            except OSError as exc:
                log.warning("console.store_unavailable", error=type(exc).__name__)
                return _UnavailableSession()
            if session.sid == session_id:
                session.stored = True
                return session
        return _PageSession(
            self._visitors.read(request), sid=secrets.token_urlsafe(self.sid_length)
        )

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        """Store the session. If that fails, return an error in place of the page."""
        if isinstance(session, _UnavailableSession) or request.path.startswith(STATIC):
            return
        try:
            if "session_id" in session or MFA_TOKEN in session:
                super().save_session(app, session, response)
                self._visitors.delete(app, request, response)
            else:
                self._save_in_cookie(app, session, response)
        except OSError as exc:
            log.warning("console.store_unavailable", error=type(exc).__name__)
            _replace_by_problem(response, StoreUnavailable())

    def _save_in_cookie(self, app: Flask, session: _PageSession, response: Response) -> None:
        """Save in the visitor's cookie, and delete a session that was stored while signed in."""
        response.vary.add("Cookie")
        if not session.modified:
            return
        if session.stored:
            self._delete_session(self._get_store_id(session.sid))
            response.set_cookie(
                self.get_cookie_name(app),
                "",
                max_age=0,
                expires=0,
                path=self.get_cookie_path(app),
                domain=self.get_cookie_domain(app),
                secure=self.get_cookie_secure(app),
                httponly=self.get_cookie_httponly(app),
                samesite=self.get_cookie_samesite(app),
            )
        self._visitors.write(app, session, response)

    def _lifetime(self, session: ServerSideSession, usual: timedelta) -> timedelta:
        return usual if "session_id" in session else self._second_step_lifetime


class _RedisUnavailable(ConnectionError):
    """Redis does not reply, or rejects the command."""


class _RedisSessions(_PageSessions):
    """Browser sessions in Redis."""

    def __init__(self, app: Flask, client: RedisClient, **options: Any) -> None:
        self._client = client
        super().__init__(app, **options)

    def _retrieve_session_data(self, store_id: str) -> dict[str, Any] | None:
        """Return a stored session; None, as for an expired one, if it cannot be read.

        The serializer of Flask-Session would load a pickle, which can execute any code.
        """
        try:
            return msgspec.msgpack.decode(self._execute(command("GET", store_id)) or b"", type=dict)
        except msgspec.DecodeError:
            return None

    def _delete_session(self, store_id: str) -> None:
        self._execute(command("DEL", store_id))

    def _upsert_session(
        self, session_lifetime: timedelta, session: ServerSideSession, store_id: str
    ) -> None:
        lifetime = int(self._lifetime(session, session_lifetime).total_seconds())
        text = self.serializer.encode(session)
        self._execute(command("SET", store_id, text, "EX", lifetime))

    def _execute(self, one: Command) -> Any:
        """Return the reply. Raises _RedisUnavailable."""
        replies = self._client.execute(one)
        if replies is None:
            raise _RedisUnavailable()
        return replies[0]


class _FileSessions(_PageSessions, CacheLibSessionInterface):  # type: ignore[misc]
    """Browser sessions in files, for a service without Redis."""

    def _upsert_session(
        self, session_lifetime: timedelta, session: ServerSideSession, store_id: str
    ) -> None:
        super()._upsert_session(self._lifetime(session, session_lifetime), session, store_id)


def require_store(session: SessionMixin) -> None:
    """Raise StoreUnavailable if the session of this request could not be read."""
    if isinstance(session, _UnavailableSession):
        raise StoreUnavailable()


def _replace_by_problem(response: Response, error: StoreUnavailable) -> None:
    """Replace the response by the page of a problem."""
    refusal = handle_service_error(error)
    wait = refusal.headers["Retry-After"]
    problem = orjson.loads(refusal.get_data())
    response.status_code = refusal.status_code
    response.headers["Retry-After"] = wait
    for name in ("Location", "Content-Disposition"):
        response.headers.pop(name, None)
    response.set_data(render_template("console/problem.html", problem=problem, retry_after=wait))
    response.content_type = "text/html; charset=utf-8"


def init_app(app: Flask, settings: Settings) -> None:
    """Add sessions and CSRF protection for pages."""
    app.config.update(
        PERMANENT_SESSION_LIFETIME=timedelta(days=settings.session_absolute_lifetime_days),
        # The prefix binds the cookie to this host, to https and to the path / (RFC 6265bis §4.1.3).
        SESSION_COOKIE_NAME="__Host-console" if settings.is_https else "console",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=settings.is_https,
        SESSION_REFRESH_EACH_REQUEST=False,
        # The guards of pages check it. The API has no cookies, so its requests cannot be forged.
        WTF_CSRF_CHECK_DEFAULT=False,
        WTF_CSRF_TIME_LIMIT=None,
        # Pages send no Referer, so it cannot be checked.
        WTF_CSRF_SSL_STRICT=False,
    )
    app.session_interface = _store(app, settings)
    csrf.init_app(app)


def _store(app: Flask, settings: Settings) -> _PageSessions:
    # Bound to SECRET_KEY: a new key invalidates all former cookies.
    prefix = f"{KEY_PREFIX}{key_id(settings.secret_key)}:"
    options: dict[str, Any] = {
        "key_prefix": prefix,
        "permanent": False,
        "second_step_lifetime": timedelta(seconds=settings.mfa_token_seconds),
    }
    if not settings.redis_url:
        folder = settings.instance_dir / "console"
        make_folder(folder)
        cache = FileSystemCache(str(folder), threshold=MAX_FILES, mode=0o600)
        return _FileSessions(app, client=cache, **options)
    # Loads redis-py, which an installation without Redis does not need.
    from userapi.infrastructure.redis_topologies import redis_client

    client = redis_client(
        settings.redis_url, timeout_seconds=TIMEOUT_SECONDS, open_seconds=BREAKER_SECONDS
    )
    return _RedisSessions(app, client, **options)
