"""Browser sessions: a random id in a cookie, and what it stands for in Redis or in files.

Only the pages have them. Whoever is not signed in has none on the server: the seed of their form
tokens, and the messages for their next page, are in a signed cookie. Where Redis is configured and
away, so are the pages for people who are signed in; the API goes on.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import orjson
import structlog
from cachelib import FileSystemCache
from flask import Flask, Request, Response, render_template, request
from flask.sessions import SecureCookieSessionInterface, SessionMixin
from flask_session.base import ServerSideSession, ServerSideSessionInterface
from flask_session.cachelib import CacheLibSessionInterface
from flask_session.redis import RedisSessionInterface
from flask_wtf import CSRFProtect
from itsdangerous import BadData
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from userapi.api.problems import handle_service_error
from userapi.errors import Unavailable
from userapi.infrastructure.encryption import key_id
from userapi.private_files import make_folder
from userapi.settings import Settings

log = structlog.get_logger(__name__)

PREFIX = "/console/"
KEY_PREFIX = "browser:"
TIMEOUT_SECONDS = 0.5
# Long enough to type a password; every visitor of the sign-in page has one.
STRANGER_LIFETIME = timedelta(hours=2)
KEPT_BY_VISITORS = ("csrf_token", "_flashes")
# A cookie holds 4 KB.
MAX_MESSAGES = 5
MAX_FILES = 10_000

csrf = CSRFProtect()


class StoreAway(Unavailable):
    """The store of the browser sessions does not answer."""

    title = "Browser sessions are temporarily unavailable. Try again."


class StoreRefuses(StoreAway):
    """The store answers, and accepts no writes."""

    title = "Browser sessions are temporarily unavailable. Try again."


class _PageSession(ServerSideSession):  # type: ignore[misc]  # has no annotations
    """What a page knows of a browser; `stored` if it was read from the server's store."""

    stored = False


class _AwaySession(_PageSession):
    """What a request has in place of a session that cannot be read."""


class _VisitorCookies(SecureCookieSessionInterface):
    """Signs and reads what a browser keeps that nobody has signed in with."""

    salt = "console-visitor"

    def __init__(self, app: Flask) -> None:
        serializer = self.get_signing_serializer(app)
        if serializer is None:
            raise RuntimeError("SECRET_KEY is not set.")
        self._serializer = serializer
        self._name = f"{self.get_cookie_name(app)}-visitor"

    def read(self, request: Request) -> dict[str, Any]:
        """Return what the cookie holds; nothing if it is missing, old or not signed by us."""
        try:
            kept = self._serializer.loads(
                request.cookies.get(self._name, ""),
                max_age=int(STRANGER_LIFETIME.total_seconds()),
            )
        except BadData:
            return {}
        return {name: kept[name] for name in KEPT_BY_VISITORS if name in kept}

    def write(self, app: Flask, session: Mapping[str, Any], response: Response) -> None:
        """Let the browser keep the part of a session that strangers need."""
        kept = {name: session[name] for name in KEPT_BY_VISITORS if name in session}
        if "_flashes" in kept:
            kept["_flashes"] = kept["_flashes"][-MAX_MESSAGES:]
        response.set_cookie(self._name, str(self._serializer.dumps(kept)), **self._options(app))

    def delete(self, app: Flask, request: Request, response: Response) -> None:
        """Let the browser drop the cookie, if it has it."""
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


class _OnlyForPages(ServerSideSessionInterface):  # type: ignore[misc]  # has no annotations
    """Opens a session for pages alone, and stores those that somebody has signed in with."""

    session_class = _PageSession

    def __init__(self, app: Flask, **options: Any) -> None:
        super().__init__(app, **options)
        self._visitors = _VisitorCookies(app)

    def open_session(self, app: Flask, request: Request) -> Any:
        """Return the session of a page; None, for no session at all, elsewhere."""
        if not request.path.startswith(PREFIX) or request.endpoint == "console.static":
            return None
        session_id = request.cookies.get(self.get_cookie_name(app))
        if session_id:
            try:
                session = super().open_session(app, request)
            except (RedisError, OSError) as exc:
                log.warning("console.store_unavailable", error=type(exc).__name__)
                return _AwaySession()
            if session.sid == session_id:
                session.stored = True
                return session
        return _PageSession(self._visitors.read(request), sid=self._generate_sid(self.sid_length))

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        """Keep the session. A page whose session cannot be kept is not shown."""
        if isinstance(session, _AwaySession):
            return
        try:
            if "session_id" in session:
                super().save_session(app, session, response)
                self._visitors.delete(app, request, response)
            else:
                self._save_at_visitor(app, session, response)
        except (RedisError, OSError) as exc:
            log.warning("console.store_unavailable", error=type(exc).__name__)
            refuses = isinstance(exc, ResponseError)
            _put_problem_in(response, StoreRefuses() if refuses else StoreAway())

    def _save_at_visitor(self, app: Flask, session: _PageSession, response: Response) -> None:
        """Store nothing here, and no longer what was stored while somebody was signed in."""
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


class _RedisSessions(_OnlyForPages, RedisSessionInterface):  # type: ignore[misc]
    """Browser sessions in Redis."""


class _FileSessions(_OnlyForPages, CacheLibSessionInterface):  # type: ignore[misc]
    """Browser sessions in files, where the service runs by itself."""


def require_store(session: SessionMixin) -> None:
    """Raise StoreAway where the session of this request could not be read."""
    if isinstance(session, _AwaySession):
        raise StoreAway()


def _put_problem_in(response: Response, error: StoreAway) -> None:
    """Make the answer a page that says why the one that was drawn is not shown."""
    answer = handle_service_error(error)
    wait = answer.headers["Retry-After"]
    problem = orjson.loads(answer.get_data())
    response.status_code = answer.status_code
    response.headers["Retry-After"] = wait
    for name in ("Location", "Content-Disposition"):
        response.headers.pop(name, None)
    response.set_data(render_template("console/problem.html", problem=problem, retry_after=wait))
    response.content_type = "text/html; charset=utf-8"


def init_app(app: Flask, settings: Settings) -> None:
    """Give pages their sessions, and their forms a token against forgery."""
    app.config.update(
        PERMANENT_SESSION_LIFETIME=timedelta(days=settings.session_absolute_lifetime_days),
        # The prefix binds the cookie to this host, to https and to the path / (RFC 6265bis §4.1.3).
        SESSION_COOKIE_NAME="__Host-console" if settings.is_https else "console",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=settings.is_https,
        SESSION_REFRESH_EACH_REQUEST=False,
        # Checked by the pages themselves: the API has no cookies and so nothing to forge.
        WTF_CSRF_CHECK_DEFAULT=False,
        WTF_CSRF_TIME_LIMIT=None,
        # No page sends a Referer, so none can be asked for.
        WTF_CSRF_SSL_STRICT=False,
    )
    app.session_interface = _store(app, settings)
    csrf.init_app(app)


def _store(app: Flask, settings: Settings) -> _OnlyForPages:
    # Bound to SECRET_KEY: with a new one no cookie of before names a session.
    prefix = f"{KEY_PREFIX}{key_id(settings.secret_key)}:"
    options: dict[str, Any] = {"key_prefix": prefix, "permanent": False}
    if not settings.redis_url:
        folder = settings.instance_dir / "console"
        make_folder(folder)
        cache = FileSystemCache(str(folder), threshold=MAX_FILES, mode=0o600)
        return _FileSessions(app, client=cache, **options)
    client = Redis.from_url(
        settings.redis_url,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 1),
    )
    return _RedisSessions(app, client=client, **options)
