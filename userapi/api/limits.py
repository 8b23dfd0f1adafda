"""Rate limits, all of them here: which endpoint has which, and by what is counted."""

import ipaddress
import math
import time
from typing import Any, cast

from flask import Flask, Response, request
from flask_limiter import Limiter, RateLimitExceeded

from userapi.errors import TooMany, Unauthenticated
from userapi.settings import Settings

from .access import bearer_token
from .context import services
from .problems import handle_service_error

# Endpoint → the setting that holds its limit, counted by address. All others share the default.
NAMED_LIMITS = {
    "auth.login": "rate_limit_login",
    "auth.register": "rate_limit_register",
    "auth.refresh": "rate_limit_refresh",
    "auth.request_password_reset": "rate_limit_password_reset",
    "auth.resend_verification": "rate_limit_password_reset",
}
EXEMPT_PREFIXES = ("health.", "prometheus", "metrics")


def client_network() -> str:
    """Return what an anonymous caller is counted by: an IPv4 address, or a /64 of IPv6."""
    text = request.remote_addr or "unknown"
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return text


def user_or_network() -> str:
    """Return what a caller is counted by: the user of a genuine token, otherwise the address."""
    if "Authorization" in request.headers:
        try:
            claims = services().authentication.verify_signature(bearer_token())
        except Unauthenticated:
            return client_network()
        return f"user:{claims.user_id}"
    return client_network()


def _storage_options(settings: Settings) -> dict[str, Any]:
    return {"socket_connect_timeout": 0.2, "socket_timeout": 0.2} if settings.redis_url else {}


def init_app(app: Flask, settings: Settings) -> None:
    """Limit every endpoint of the application but health and metrics."""
    if not settings.rate_limit_enabled:
        return
    limiter = Limiter(
        key_func=user_or_network,
        app=None,
        storage_uri=settings.redis_url or "memory://",
        storage_options=_storage_options(settings),
        default_limits=[settings.rate_limit_default],
        in_memory_fallback_enabled=bool(settings.redis_url),
        strategy="fixed-window",
        key_prefix="userapi",
        headers_enabled=False,
    )
    limiter.init_app(app)
    for endpoint, view in list(app.view_functions.items()):
        name = NAMED_LIMITS.get(endpoint)
        if name is not None:
            limited_by = limiter.limit(getattr(settings, name), key_func=client_network)
            app.view_functions[endpoint] = cast(Any, limited_by(cast(Any, view)))
        elif endpoint.startswith(EXEMPT_PREFIXES):
            limiter.exempt(view)

    @app.errorhandler(RateLimitExceeded)
    def limited(error: RateLimitExceeded) -> Response:
        current = limiter.current_limit
        wait = math.ceil(current.reset_at - time.time()) if current else 1
        return handle_service_error(TooMany(wait))

    @app.after_request
    def add_limit_headers(response: Response) -> Response:
        current = limiter.current_limit
        if current is not None:
            response.headers["X-RateLimit-Limit"] = str(current.limit.amount)
            response.headers["X-RateLimit-Remaining"] = str(current.remaining)
            response.headers["X-RateLimit-Reset"] = str(int(current.reset_at))
        return response
