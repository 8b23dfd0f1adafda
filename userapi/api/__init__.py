"""HTTP: endpoints, and what only HTTP needs. The business rules are in the subjects."""

from flask import Flask, Response
from flask_cors import CORS

from userapi.wiring.services import Services

from . import (
    activity,
    api_keys,
    audit,
    auth,
    bodies,
    documentation,
    health,
    limits,
    metrics,
    mfa,
    own_account,
    own_sessions,
    passkeys,
    passwords,
    problems,
    proxies,
    requests,
    responses,
    roles,
    service_accounts,
    statistics,
    step_up,
    tokens,
    transfers,
    user_mfa,
    user_sessions,
    user_status,
    users,
    wellknown,
)

# Each adds its endpoints to the blueprint of `auth` or of `users`.
MODULES_OF_AUTH = (passwords, own_sessions, mfa, passkeys, step_up, tokens)
MODULES_OF_USERS = (own_account, user_status, user_sessions, user_mfa)


def init_app(app: Flask, services: Services) -> None:
    """Add the endpoints to the application, and what every request shares."""
    settings = services.settings
    app.url_map.merge_slashes = False
    proxies.init_app(app, settings.trusted_proxy_count)
    requests.init_app(app, settings)
    responses.init_app(app, settings)
    problems.init_app(app)
    documented = documentation.Api(app, settings)
    for module in (auth, users, transfers, activity, statistics, roles, audit, health, wellknown):
        documented.register_blueprint(module.blp)
    for blueprint in (
        service_accounts.blp,
        api_keys.service_keys,
        api_keys.own_keys,
        api_keys.user_keys,
    ):
        documented.register_blueprint(blueprint)
    metrics.init_app(app, services)
    documentation.init_app(app, documented, settings)
    limits.init_app(app, services)
    requests.refuse_control_characters(app)
    bodies.init_app(app)
    if settings.cors_origins:
        _allow_origins(app, settings.cors_origins)


def _allow_origins(app: Flask, origins: tuple[str, ...]) -> None:
    """Allow browsers to call from these origins. Cookies are never sent: the API has none."""
    if "*" not in origins:

        @app.after_request
        def vary(response: Response) -> Response:
            # flask-cors omits it if there is one origin; a cache in between needs it anyway.
            response.vary.add("Origin")
            return response

    CORS(
        app,
        origins=list(origins),
        supports_credentials=False,
        expose_headers=[
            "ETag",
            "Location",
            "Preference-Applied",
            "Retry-After",
            "WWW-Authenticate",
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
            "Prefer",
            "X-Correlation-ID",
            "X-Request-ID",
            "traceparent",
        ],
        max_age=600,
        vary_header=True,
        send_wildcard=True,
    )
