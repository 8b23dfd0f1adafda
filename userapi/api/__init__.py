"""HTTP: endpoints, and all that only HTTP needs. The rules stand in the subjects below."""

from flask import Flask
from flask_cors import CORS
from werkzeug.middleware.proxy_fix import ProxyFix

from userapi.wiring import Services

from . import (
    activity,
    audit,
    auth,
    documentation,
    health,
    limits,
    metrics,
    problems,
    requests,
    responses,
    roles,
    statistics,
    transfers,
    users,
    wellknown,
)


def init_app(app: Flask, services: Services) -> None:
    """Give the application its endpoints, and every request what all have in common."""
    settings = services.settings
    app.url_map.merge_slashes = False
    if settings.trusted_proxy_count:
        hops = settings.trusted_proxy_count
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=hops, x_proto=hops
        )
    requests.init_app(app, settings)
    responses.init_app(app, settings)
    problems.init_app(app)
    documented = documentation.Api(app, settings)
    for module in (auth, users, transfers, activity, statistics, roles, audit, health):
        documented.register_blueprint(module.blp)
    app.register_blueprint(wellknown.blp)
    metrics.init_app(app, services)
    documentation.init_app(app, documented, settings)
    limits.init_app(app, services)
    if settings.cors_origins:
        CORS(
            app,
            origins=list(settings.cors_origins),
            expose_headers=[
                "ETag",
                "Location",
                "Retry-After",
                "X-Correlation-ID",
                "X-RateLimit-Limit",
                "X-RateLimit-Remaining",
                "X-RateLimit-Reset",
            ],
            allow_headers=[
                "Authorization",
                "Content-Type",
                "Idempotency-Key",
                "If-Match",
                "X-Correlation-ID",
                "X-Request-ID",
                "traceparent",
            ],
            max_age=600,
            vary_header=True,
            send_wildcard=True,
        )
