"""Browser sessions: a random id in a cookie, and what it stands for in Redis or in files.

Only the pages have them. Where Redis is configured and away, so are the pages; the API
goes on.
"""

from datetime import timedelta
from typing import Any

import orjson
import structlog
from cachelib import FileSystemCache
from flask import Flask, Request, Response, render_template
from flask.sessions import SessionMixin
from flask_session.base import ServerSideSession, ServerSideSessionInterface
from flask_session.cachelib import CacheLibSessionInterface
from flask_session.redis import RedisSessionInterface
from flask_wtf import CSRFProtect
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from userapi.api.problems import handle_service_error
from userapi.errors import Unavailable
from userapi.private_files import make_folder
from userapi.settings import Settings

log = structlog.get_logger(__name__)

PREFIX = "/console/"
KEY_PREFIX = "browser:"
TIMEOUT_SECONDS = 0.5
# Long enough to type a password; every visitor of the sign-in page has one.
STRANGER_LIFETIME = timedelta(hours=2)
MOST_FILES = 10_000

csrf = CSRFProtect()


class StoreAway(Unavailable):
    """The store of the browser sessions does not answer."""

    title = "Browser sessions cannot be read at the moment."


class StoreRefuses(StoreAway):
    """The store answers, and accepts no writes."""

    title = "Browser sessions cannot be stored at the moment."


class _AwaySession(ServerSideSession):  # type: ignore[misc]  # has no annotations
    """What a request has in place of a session that cannot be read."""


class _OnlyForPages(ServerSideSessionInterface):  # type: ignore[misc]  # has no annotations
    """Opens a session for pages alone, and keeps a stranger's for a short while only."""

    def open_session(self, app: Flask, request: Request) -> Any:
        """Return the session of a page; None, for no session at all, elsewhere."""
        if not request.path.startswith(PREFIX) or request.endpoint == "console.static":
            return None
        try:
            return super().open_session(app, request)
        except (RedisError, OSError) as exc:
            log.warning("console.store_unavailable", error=type(exc).__name__)
            return _AwaySession()

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        """Keep the session. A page whose session cannot be kept is not shown."""
        if isinstance(session, _AwaySession):
            return
        try:
            super().save_session(app, session, response)
        except (RedisError, OSError) as exc:
            log.warning("console.store_unavailable", error=type(exc).__name__)
            refuses = isinstance(exc, ResponseError)
            _put_problem_in(response, StoreRefuses() if refuses else StoreAway())

    def _upsert_session(
        self, session_lifetime: timedelta, session: ServerSideSession, store_id: str
    ) -> None:
        lifetime = session_lifetime if "session_id" in session else STRANGER_LIFETIME
        super()._upsert_session(lifetime, session, store_id)


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
    options: dict[str, Any] = {"key_prefix": KEY_PREFIX, "permanent": False}
    if not settings.redis_url:
        folder = settings.instance_dir / "console"
        make_folder(folder)
        cache = FileSystemCache(str(folder), threshold=MOST_FILES, mode=0o600)
        return _FileSessions(app, client=cache, **options)
    client = Redis.from_url(
        settings.redis_url,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 1),
    )
    return _RedisSessions(app, client=client, **options)
