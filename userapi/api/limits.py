"""Rate limits, all of them here: which endpoint has which, and by what is counted.

The named limits of a few endpoints are declared to Flask-Limiter, which enforces them around their
views. The default limit of all others is counted here, because every request pays for it: in the
same round trip to Redis that brings the copy of the live session. Neither asks again for the
headers, and both count in this process while Redis is away.
"""

import ipaddress
import math
from typing import Any, cast

from flask import Flask, Response, g, request, session
from flask.ctx import _AppCtxGlobals
from flask_limiter import Limiter, RateLimitExceeded
from limits.storage import Storage

from userapi.authentication.tokens import AccessClaims
from userapi.errors import TooMany, Unauthenticated
from userapi.rates import Hit, Rate, RateCounter
from userapi.wiring import Services

from .access import bearer_token
from .context import present, services
from .problems import handle_service_error

# Endpoint → the setting that holds its limit, counted by address. All others share the default.
NAMED_LIMITS = {
    "auth.login": "rate_limit_login",
    "auth.register": "rate_limit_register",
    "auth.refresh": "rate_limit_refresh",
    "auth.request_password_reset": "rate_limit_password_reset",
    "auth.resend_verification": "rate_limit_password_reset",
    "console.sign_in": "rate_limit_login",
    "console.sign_up": "rate_limit_register",
    "console.forgot_password": "rate_limit_password_reset",
}
EXEMPT_PREFIXES = ("health.", "metrics", "console.static")


class CounterStorage(Storage):
    """Gives Flask-Limiter the service's own counters, which know what to do without Redis."""

    STORAGE_SCHEME = ["userapi"]

    def __init__(self, uri: str, *, rates: RateCounter, **options: Any) -> None:
        super().__init__(uri, **options)
        self._rates = rates

    @property
    def base_exceptions(self) -> type[Exception]:
        """Return what counting may raise that Flask-Limiter could wrap."""
        return OSError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count a request; what it was counted as is kept for the headers."""
        g.hit = hit = self._rates.hit(key, seconds=expiry, cost=amount)
        _tell(present(g), hit)
        return hit.count

    def get(self, key: str) -> int:
        """Return how many requests the present window has seen."""
        return self._rates.count(key)

    def get_expiry(self, key: str) -> float:
        """Return when the window ends of what this request was counted under."""
        return services().clock.now().timestamp() + cast(Hit, g.hit).seconds_left

    def check(self) -> bool:
        """Tell that there are counters, in Redis or here."""
        return True

    def reset(self) -> int | None:
        """Reset nothing: counters end by themselves."""
        return None

    def clear(self, key: str) -> None:
        """Begin a new window with the next request."""
        self._rates.forget(key)


class NamedLimiter(Limiter):
    """Flask-Limiter with limits around views alone.

    Its hooks around every request are for limits and headers that there are none of here, and
    would cost each request 30 microseconds.
    """

    def init_app(self, app: Flask) -> None:
        """Serve the application, as one that is known to it and needs no hooks."""
        app.extensions.setdefault("limiter", set()).add(self)
        super().init_app(app)


def client_network() -> str:
    """Return what an anonymous caller is counted by: an IPv4 address, or a /64 of IPv6."""
    text = request.remote_addr or "unknown"
    if ":" not in text:
        return text
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return text
    return str(ipaddress.ip_network((address, 64), strict=False))


def genuine_claims() -> AccessClaims | None:
    """Return what the request's token says, if it is one of ours that has not expired."""
    if "Authorization" not in request.headers:
        return None
    try:
        return services().authentication.verify_signature(bearer_token())
    except Unauthenticated:
        return None


def init_app(app: Flask, services: Services) -> None:
    """Limit every endpoint of the application but health and metrics."""
    settings = services.settings
    if not settings.rate_limit_enabled:
        return
    default = Rate.parse(settings.rate_limit_default)
    named = {
        name: Rate.parse(getattr(settings, key))
        for name, key in NAMED_LIMITS.items()
        if name in app.view_functions
    }
    exempt = {name for name in app.view_functions if name.startswith(EXEMPT_PREFIXES)}
    limiter = _declare(app, services)

    @app.before_request
    def count() -> None:
        endpoint, state = request.endpoint, present(g)
        if endpoint in exempt:
            return
        if endpoint in named and request.method != "OPTIONS":
            state.rate = named[endpoint]  # Counted by Flask-Limiter, around the view.
            return
        state.rate = default
        state.claims = claims = genuine_claims()
        state.hit = hit = _hit(services, default, claims)
        state.session_answer = hit.answer
        _tell(state, hit)
        if hit.count > default.amount:
            raise TooMany(math.ceil(hit.seconds_left))

    @app.errorhandler(RateLimitExceeded)
    def refuse(_error: RateLimitExceeded) -> Response:
        return handle_service_error(TooMany(math.ceil(cast(Hit, g.hit).seconds_left)))

    app.extensions["userapi.limiter"] = limiter


def _tell(state: _AppCtxGlobals, hit: Hit) -> None:
    """Let the answer say how many requests the caller has left."""
    rate: Rate = state.rate
    resets_at = services().clock.now().timestamp() + hit.seconds_left
    state.answer_headers += (
        ("X-RateLimit-Limit", str(rate.amount)),
        ("X-RateLimit-Remaining", str(max(0, rate.amount - hit.count))),
        ("X-RateLimit-Reset", str(math.ceil(resets_at))),
    )


def _declare(app: Flask, services: Services) -> Limiter:
    """Declare the named limits to Flask-Limiter."""
    limiter = NamedLimiter(
        key_func=client_network,
        storage_uri="userapi://",
        storage_options=cast(Any, {"rates": services.rates}),
        strategy="fixed-window",
    )
    limiter.init_app(app)
    for endpoint in NAMED_LIMITS.keys() & app.view_functions.keys():
        limited = limiter.limit(getattr(services.settings, NAMED_LIMITS[endpoint]))
        app.view_functions[endpoint] = limited(cast(Any, app.view_functions[endpoint]))
    return limiter


def _hit(services: Services, rate: Rate, claims: AccessClaims | None) -> Hit:
    """Count this request by its user or network, and bring its session's copy along."""
    if claims is None:
        # The pages know people by a browser's cookie; for all others there is no such session.
        user_id = session.get("user_id")
        key = client_network() if user_id is None else f"user:{user_id}"
        return services.rates.hit(key, seconds=rate.seconds)
    question = services.live_sessions.question(
        claims.session_id, user_id=claims.user_id, session_version=claims.session_version
    )
    return services.rates.hit(f"user:{claims.user_id}", seconds=rate.seconds, along=question)
