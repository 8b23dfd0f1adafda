"""Rate limits, all of them here: which endpoint has which, and by what is counted.

Every request counts before its body is read and before anything is stored. Named limits go through
Flask-Limiter. The default limit of all others is counted here, because every request pays for it:
in the same round trip to Redis that brings the copy of the live session. Both count in this process
while Redis is away.

A request counts for a user only if the session behind its token or cookie is live. One whose token
is forged, expired or revoked counts for its network, so that nobody can use up a user's requests
with a token that has ended.
"""

import ipaddress
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from flask import Flask, g, request
from flask.ctx import _AppCtxGlobals
from flask_limiter import Limiter, RateLimitExceeded
from limits.storage import Storage

from userapi.authentication.token_status import SessionReference
from userapi.errors import TooMany, Unauthenticated
from userapi.infrastructure.rate_counters import Hit, Rate, RateCounter
from userapi.wiring import Services

from .access import bearer_token, browser_session, keep_answer, require_live
from .context import present, services


@dataclass(frozen=True, slots=True)
class NamedLimit:
    """A limit of its own: the setting that holds it, and the endpoints that count together.

    Counted by network in place of the default limit, or by account beside it.
    """

    setting: str
    endpoints: tuple[str, ...]
    by_account: bool = False


NAMED_LIMITS = (
    NamedLimit("rate_limit_login", ("auth.login", "console.sign_in")),
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
        self._rates.reset(key)


class HooklessLimiter(Limiter):
    """Flask-Limiter without its hooks around every request.

    They are for default limits and headers, which are made here, and cost a request 30 µs.
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


def caller_reference() -> SessionReference | None:
    """Return which session the request's token or cookie is of; None without a valid one.

    Whether that session is live is another question.
    """
    if request.blueprint == "console":
        return browser_session()
    if "Authorization" not in request.headers:
        return None
    try:
        g.claims = claims = services().token_status.verify_access(bearer_token())
    except Unauthenticated:
        return None
    return claims


def init_app(app: Flask, services: Services) -> None:
    """Limit every endpoint of the application but health and metrics."""
    settings = services.settings
    if not settings.rate_limit_enabled:
        return
    default = Rate.parse(settings.rate_limit_default)
    exempt = {name for name in app.view_functions if name.startswith(EXEMPT_PREFIXES)}
    named, beside_default = _declare(app, services)

    @app.before_request
    def count() -> None:
        endpoint, state = request.endpoint or "", present(g)
        if endpoint in exempt:
            return
        if endpoint in named and request.method != "OPTIONS":
            named[endpoint]()
            return
        state.hit, state.caller = _count_caller(services, default)
        if state.hit.count > default.amount or endpoint not in beside_default:
            _tell(state, default)
        if state.hit.count > default.amount:
            raise TooMany(math.ceil(state.hit.seconds_left))
        if endpoint in beside_default and request.method != "OPTIONS":
            beside_default[endpoint]()


def _count_caller(services: Services, rate: Rate) -> tuple[Hit, str]:
    """Count this request by its user where the session is live, else by its network.

    Redis decides in the round trip that brings the copy of the session. Where it has no copy, the
    database is read first; what was found is kept for the view.
    """
    network, own = client_network(), caller_reference()
    if own is None:
        return services.rates.hit(network, seconds=rate.seconds), network
    user = f"user:{own.user_id}"
    live = services.live_sessions
    lookup = live.lookup(own.session_id, user_id=own.user_id, session_version=own.session_version)
    if lookup is not None:
        condition = live.liveness(own.session_id, session_version=own.session_version)
        decided = services.rates.hit_one_of(
            (user, network), seconds=rate.seconds, condition=condition, after=lookup
        )
        keep_answer(own, decided.reply)
        if decided.hit is not None and decided.key is not None:
            return decided.hit, decided.key
    key = network
    try:
        require_live(own)
        key = user
    except Unauthenticated:
        pass  # The view refuses it, if it asks for a session at all.
    finally:
        hit = services.rates.hit(key, seconds=rate.seconds)
    return hit, key


def _tell(state: _AppCtxGlobals, rate: Rate) -> None:
    """Let the answer say how many requests the caller has left."""
    hit: Hit = state.hit
    resets_at = services().clock.now().timestamp() + hit.seconds_left
    state.answer_headers += (
        ("X-RateLimit-Limit", str(rate.amount)),
        ("X-RateLimit-Remaining", str(max(0, rate.amount - hit.count))),
        ("X-RateLimit-Reset", str(math.ceil(resets_at))),
    )


Enforce = Callable[[], None]


def _declare(app: Flask, services: Services) -> tuple[dict[str, Enforce], dict[str, Enforce]]:
    """Declare the named limits to Flask-Limiter.

    Returns what enforces them, by endpoint: in place of the default limit, and beside it.
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
    beside: dict[str, Enforce] = {}
    for limit in NAMED_LIMITS:
        enforce = _enforcer(limiter, limit, getattr(services.settings, limit.setting))
        for endpoint in limit.endpoints:
            if endpoint in app.view_functions:
                (beside if limit.by_account else in_place)[endpoint] = enforce
    return in_place, beside


def _enforcer(limiter: Limiter, limit: NamedLimit, text: str) -> Enforce:
    """Return what counts a request under a named limit and raises TooMany beyond it.

    Flask-Limiter checks around a view. Here that is a function that does nothing, because a page's
    form is read before its view is called.
    """
    rate, scope = Rate.parse(text), limit.endpoints[0]

    def counted() -> None:
        """Do nothing: the limit around this is what counts."""

    counted.__qualname__ = scope
    key = (lambda: str(g.caller)) if limit.by_account else client_network
    check = limiter.shared_limit(text, scope=scope, key_func=key)(counted)

    def enforce() -> None:
        state = present(g)
        try:
            check()
        except RateLimitExceeded as exc:
            _tell(state, rate)
            raise TooMany(math.ceil(state.hit.seconds_left)) from exc
        _tell(state, rate)

    return enforce
