"""Rate limits: which endpoint has which limit, and by what it counts.

Every request counts before its body is read and before anything is stored. Flask-Limiter enforces
the named limits. The default limit of all other endpoints is counted here: every request needs it,
so it shares one round trip to Redis with the lookup of the cached session. Without Redis both count
in this process.

`callers` defines for whom a request counts.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from flask import Flask, current_app, request
from flask_limiter import Limiter
from limits import parse
from limits.storage import Storage

from userapi.errors import TooMany
from userapi.infrastructure.rate_counters import Hit, Rate, RateCounter
from userapi.machines.client_tokens import ClientSecret, account_id_of
from userapi.wiring.services import Services

from .callers import Rates, client_network, count_caller
from .context import request_state, services, unproxied
from .key_access import require_usable_key


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
    NamedLimit(
        "rate_limit_login",
        ("auth.login_mfa", "console.complete_sign_in", "console.complete_sign_in_with_passkey"),
    ),
    NamedLimit("rate_limit_login", ("auth.login_mfa_options",)),
    NamedLimit("rate_limit_login", ("auth.login_passkey", "console.passkey_sign_in")),
    NamedLimit("rate_limit_login", ("auth.login_passkey_options",)),
    NamedLimit("rate_limit_login", ("auth.step_up_options",)),
    NamedLimit(
        "rate_limit_login", ("auth.step_up", "console.confirm", "console.confirm_with_passkey")
    ),
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
# Counts its requests itself, because the body may name the client.
TOKEN_ENDPOINT = "auth.token"
TOKEN_RATE = "userapi.token_rate"
ANONYMOUS_RATE = "userapi.anonymous_rate"
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


def init_app(app: Flask, services: Services) -> None:
    """Limit every endpoint of the application except health and metrics."""
    settings = services.settings
    if not settings.rate_limit_enabled:
        return
    rates = Rates(
        default=Rate.parse(settings.rate_limit_default),
        service=Rate.parse(settings.rate_limit_service),
    )
    app.extensions[TOKEN_RATE] = Rate.parse(settings.rate_limit_token)
    app.extensions[ANONYMOUS_RATE] = rates.default
    exempt = {name for name in app.view_functions if name.startswith(EXEMPT_PREFIXES)}
    exempt.add(TOKEN_ENDPOINT)
    named, additional = _declare(app, services)

    @app.before_request
    def count() -> None:
        endpoint = unproxied(request).endpoint or ""
        if endpoint in exempt:
            return
        if endpoint in named and request.method != "OPTIONS":
            named[endpoint]()
            return
        counted = count_caller(services, rates)
        hit, rate = counted.hit, counted.rate
        state = request_state()
        state.hit, state.rate_limit_key = hit, counted.key
        if hit.count > rate.amount or endpoint not in additional:
            _add_headers(hit, rate)
        if hit.count > rate.amount:
            if counted.key != client_network():
                _refuse_key_first(app.view_functions.get(endpoint))
            raise TooMany(math.ceil(hit.seconds_left))
        if endpoint in additional and request.method != "OPTIONS":
            additional[endpoint]()


def count_token_request(client_id: str, client: ClientSecret | None) -> object:
    """Count a token request for its client and network. Raises TooMany above the limit.

    `client` has the credentials of the request, if it has any. Returns the reply of Redis about
    its key, which is looked up in the same round trip; None if it was not.
    """
    rate: Rate | None = current_app.extensions.get(TOKEN_RATE)
    if rate is None:
        return None
    account_id, rates = account_id_of(client_id), services().rates
    if account_id is None:
        # Clients choose the text: its hash bounds the length of the key.
        name = hashlib.sha256(client_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        hit, reply = rates.hit(f"token:{name}:{client_network()}", seconds=rate.seconds), None
    else:
        lookup = None if client is None else services().client_tokens.lookup(client)
        hit, reply = rates.hit_of(
            account_id,
            f"token:{account_id.hex}:{client_network()}",
            seconds=rate.seconds,
            after=None if lookup is None else lookup.command,
        )
    _add_headers(hit, rate)
    if hit.count > rate.amount:
        raise TooMany(math.ceil(hit.seconds_left))
    return reply


def count_failed_client() -> None:
    """Count a token request without valid credentials for its network. Raises TooMany.

    The client id of a request is free text: with another one in each, nothing else limits them.
    """
    rate: Rate | None = current_app.extensions.get(ANONYMOUS_RATE)
    if rate is None:
        return
    hit = services().rates.hit(client_network(), seconds=rate.seconds)
    if hit.count > rate.amount:
        raise TooMany(math.ceil(hit.seconds_left))


def _refuse_key_first(view: Any) -> None:
    """Raise what refuses the key of a request above the limit: that precedes the 429."""
    reference = request_state().key_reference
    if reference is not None and getattr(view, "credentials", None) is not None:
        require_usable_key(reference)


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
    """Return a function that counts a request and raises TooMany above the named limit."""
    rate, limit_item, scope = Rate.parse(text), parse(text), limit.endpoints[0]

    def enforce() -> None:
        key = request_state().rate_limit_key if limit.by_account else client_network()
        is_within = limiter.limiter.hit(limit_item, key, scope)
        hit = _latest_hit()
        _add_headers(hit, rate)
        if not is_within:
            raise TooMany(math.ceil(hit.seconds_left))

    return enforce
