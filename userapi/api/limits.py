"""Rate limits: which endpoint has which, and what it counts by.

Every request counts before its body is read and before anything is stored. Flask-Limiter enforces
the named limits. The default limit of all other endpoints is counted here: every request needs it,
so it shares one round trip to Redis with the lookup of the cached session. Without Redis both count
in this process.

A request counts for a user only if the session of its token or cookie is live. A request with a
forged, expired or revoked token counts for its network, so that nobody can exhaust the limit of a
user with a token that is no longer valid.
"""

import ipaddress
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from flask import Flask, request
from flask_limiter import Limiter, RateLimitExceeded
from limits.storage import Storage

from userapi.authentication.token_status import SessionReference
from userapi.errors import TooMany, Unauthenticated
from userapi.infrastructure.rate_counters import Hit, Rate, RateCounter, key_of_user
from userapi.wiring.services import Services

from .access import bearer_token, browser_session, require_live, use_cached_session
from .context import request_state, services, unproxied


@dataclass(frozen=True, slots=True)
class NamedLimit:
    """A limit with its own setting, shared by its endpoints.

    It counts by network in place of the default limit, or by account in addition to it.
    """

    setting: str
    endpoints: tuple[str, ...]
    by_account: bool = False


NAMED_LIMITS = (
    NamedLimit("rate_limit_login", ("auth.login", "console.sign_in")),
    NamedLimit("rate_limit_login", ("auth.login_mfa",)),
    NamedLimit("rate_limit_login", ("auth.login_mfa_options",)),
    NamedLimit("rate_limit_login", ("auth.login_passkey",)),
    NamedLimit("rate_limit_login", ("auth.login_passkey_options",)),
    NamedLimit("rate_limit_login", ("auth.step_up_options",)),
    NamedLimit("rate_limit_login", ("auth.step_up",)),
    NamedLimit("rate_limit_register", ("auth.register", "console.sign_up")),
    NamedLimit("rate_limit_refresh", ("auth.refresh",)),
    NamedLimit(
        "rate_limit_password_reset", ("auth.request_password_reset", "console.forgot_password")
    ),
    NamedLimit("rate_limit_password_reset", ("auth.resend_verification",)),
    NamedLimit(
        "rate_limit_password_strength", ("auth.password_strength", "console.password_strength")
    ),
    NamedLimit(
        "rate_limit_email_change", ("auth.change_email", "console.change_email"), by_account=True
    ),
)
EXEMPT_PREFIXES = ("health.", "metrics", "console.static")


class CounterStorage(Storage):
    """The service's counters as a storage of Flask-Limiter; they also work without Redis."""

    STORAGE_SCHEME = ["userapi"]

    def __init__(self, uri: str, *, rates: RateCounter, **options: Any) -> None:
        super().__init__(uri, **options)
        self._rates = rates

    @property
    def base_exceptions(self) -> type[Exception]:
        """Return the exceptions that Flask-Limiter may wrap."""
        return OSError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count a request, and store the count for the headers."""
        request_state().hit = hit = self._rates.hit(key, seconds=expiry, cost=amount)
        return hit.count

    def get(self, key: str) -> int:
        """Return the number of requests in the current window."""
        return self._rates.count(key)

    def get_expiry(self, key: str) -> float:
        """Return when the window of this request ends."""
        return services().clock.now().timestamp() + _latest_hit().seconds_left

    def check(self) -> bool:
        """Return that counting works: in Redis or in this process."""
        return True

    def reset(self) -> int | None:
        """Reset nothing: counters expire."""
        return None

    def clear(self, key: str) -> None:
        """Start a new window with the next request."""
        self._rates.reset(key)


class HooklessLimiter(Limiter):
    """Flask-Limiter without its hooks around every request.

    The hooks serve default limits and headers, which this module handles, and cost a request 30 µs.
    """

    def init_app(self, app: Flask) -> None:
        """Register the application as one that already has the hooks."""
        app.extensions.setdefault("limiter", set()).add(self)
        super().init_app(app)


def client_network() -> str:
    """Return what an anonymous caller counts by: an IPv4 address, or a /64 of IPv6."""
    text = unproxied(request).remote_addr or "unknown"
    if ":" not in text:
        return text
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return text
    return str(ipaddress.ip_network((address, 64), strict=False))


def caller_reference() -> SessionReference | None:
    """Return the session of the request's token or cookie; None without a valid signature.

    The session may have ended.
    """
    current = unproxied(request)
    if current.blueprint == "console":
        return browser_session()
    if "Authorization" not in current.headers:
        return None
    try:
        request_state().claims = claims = services().token_status.verify_access(bearer_token())
    except Unauthenticated:
        return None
    return claims


def init_app(app: Flask, services: Services) -> None:
    """Limit every endpoint of the application except health and metrics."""
    settings = services.settings
    if not settings.rate_limit_enabled:
        return
    default = Rate.parse(settings.rate_limit_default)
    exempt = {name for name in app.view_functions if name.startswith(EXEMPT_PREFIXES)}
    named, additional = _declare(app, services)

    @app.before_request
    def count() -> None:
        endpoint = unproxied(request).endpoint or ""
        if endpoint in exempt:
            return
        if endpoint in named and request.method != "OPTIONS":
            named[endpoint]()
            return
        hit, key = _count_caller(services, default)
        state = request_state()
        state.hit, state.rate_limit_key = hit, key
        if hit.count > default.amount or endpoint not in additional:
            _add_headers(hit, default)
        if hit.count > default.amount:
            raise TooMany(math.ceil(hit.seconds_left))
        if endpoint in additional and request.method != "OPTIONS":
            additional[endpoint]()


def _count_caller(services: Services, rate: Rate) -> tuple[Hit, str]:
    """Count this request for its user if the session is live, otherwise for its network.

    Redis decides in the round trip that returns the cached session. If none is cached, the database
    is read first. The result is stored for the view.
    """
    network, own = client_network(), caller_reference()
    if own is None:
        return services.rates.hit(network, seconds=rate.seconds), network
    live = services.live_sessions
    lookup = live.lookup(own.session_id, user_id=own.user_id, session_version=own.session_version)
    if lookup is not None:
        condition = live.liveness(
            own.session_id, user_id=own.user_id, session_version=own.session_version
        )
        decided = services.rates.hit_if(
            own.user_id, seconds=rate.seconds, condition=condition, after=lookup
        )
        use_cached_session(own, decided.reply)
        if decided.hit is not None:
            return decided.hit, key_of_user(own.user_id)
        if decided.is_met is False:
            return services.rates.hit(network, seconds=rate.seconds), network
    key = network
    try:
        require_live(own)
        key = key_of_user(own.user_id)
    except Unauthenticated:
        pass  # The guard of the view rejects the request if it requires a session.
    finally:
        hit = services.rates.hit(key, seconds=rate.seconds)
    return hit, key


def _latest_hit() -> Hit:
    hit = request_state().hit
    if hit is None:
        raise RuntimeError("this request was not counted")
    return hit


def _add_headers(hit: Hit, rate: Rate) -> None:
    """Add the headers that show how many requests the caller has left."""
    resets_at = services().clock.now().timestamp() + hit.seconds_left
    request_state().response_headers += (
        ("X-RateLimit-Limit", str(rate.amount)),
        ("X-RateLimit-Remaining", str(max(0, rate.amount - hit.count))),
        ("X-RateLimit-Reset", str(math.ceil(resets_at))),
    )


Enforce = Callable[[], None]


def _declare(app: Flask, services: Services) -> tuple[dict[str, Enforce], dict[str, Enforce]]:
    """Declare the named limits to Flask-Limiter.

    Returns the functions that enforce them, by endpoint: those in place of the default limit, and
    those in addition to it.
    """
    limiter = HooklessLimiter(
        key_func=client_network,
        storage_uri="userapi://",
        storage_options=cast(Any, {"rates": services.rates}),
        strategy="fixed-window",
    )
    limiter.init_app(app)
    app.extensions["userapi.limiter"] = limiter
    in_place: dict[str, Enforce] = {}
    additional: dict[str, Enforce] = {}
    for limit in NAMED_LIMITS:
        enforce = _enforcer(limiter, limit, getattr(services.settings, limit.setting))
        for endpoint in limit.endpoints:
            if endpoint in app.view_functions:
                (additional if limit.by_account else in_place)[endpoint] = enforce
    return in_place, additional


def _enforcer(limiter: Limiter, limit: NamedLimit, text: str) -> Enforce:
    """Return a function that counts a request and raises TooMany above the named limit.

    Flask-Limiter checks before a view runs. Here the view is a function that does nothing, because
    the form of a page is read before its own view runs.
    """
    rate, scope = Rate.parse(text), limit.endpoints[0]

    def counted() -> None:
        """Do nothing: the decorator counts."""

    counted.__qualname__ = scope
    key = (lambda: request_state().rate_limit_key) if limit.by_account else client_network
    check = limiter.shared_limit(text, scope=scope, key_func=key)(counted)

    def enforce() -> None:
        try:
            check()
        except RateLimitExceeded as exc:
            hit = _latest_hit()
            _add_headers(hit, rate)
            raise TooMany(math.ceil(hit.seconds_left)) from exc
        _add_headers(_latest_hit(), rate)

    return enforce
