"""Request metrics, and the endpoint that Prometheus scrapes."""

import hmac
import time

from flask import Flask, Response, request
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_flask_exporter import PrometheusMetrics

from userapi.authentication.refusals import TokenExpired, TokenInvalid, TokenRevoked
from userapi.factors.methods import Method, MfaOutcome
from userapi.machines.client_tokens import SUCCESS
from userapi.machines.errors import (
    InvalidClient,
    InvalidScope,
    InvalidTarget,
    NetworkNotAllowed,
    OAuthRequestInvalid,
    UnauthorizedClient,
    UnsupportedGrantType,
)
from userapi.metrics.counters import Metrics
from userapi.settings import Settings
from userapi.wiring.services import Services

from .access import public
from .authorization import bearer_token
from .context import request_state, unproxied
from .key_access import ACCEPTED
from .limits import NAMED_LIMITS, TOKEN_ENDPOINT
from .restrictions import PasswordChangeRequired

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED = "unmatched"

LOGIN_OUTCOMES = {
    "": "success",
    "invalid_credentials": "failure",
    "account_suspended": "suspended",
    "account_pending": "pending",
    "mfa_required": "mfa_required",
    "too_many_attempts": "locked",
    "rate_limited": "limited",
    "busy": "busy",
}
REFRESH_OUTCOMES = {
    "": "success",
    "refresh_token_reused": "reused",
    "token_expired": "expired",
    "token_invalid": "invalid",
    "token_revoked": "revoked",
    "rate_limited": "limited",
}
STEP_UP_OUTCOMES = {
    "": "success",
    "invalid_code": "failure",
    "invalid_credentials": "failure",
    "passkey_invalid": "failure",
    "too_many_attempts": "locked",
    "rate_limited": "limited",
    "mfa_required": "mfa_required",
    "token_revoked": "revoked",
    "busy": "busy",
}
KEY_OUTCOMES = (
    ACCEPTED,
    TokenInvalid.code,
    TokenRevoked.code,
    TokenExpired.code,
    PasswordChangeRequired.code,
    NetworkNotAllowed.code,
)
TOKEN_OUTCOMES = (
    SUCCESS,
    OAuthRequestInvalid.code,
    UnsupportedGrantType.code,
    InvalidClient.code,
    UnauthorizedClient.code,
    InvalidTarget.code,
    InvalidScope.code,
)
OTHER = "error"
SIGN_IN_METHODS = ("passkey", "password")


class _RequestCounter:
    """Counts requests. A label lookup costs more than the count, so each child is cached."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._children: dict[tuple[str, str, int], tuple[object, object]] = {}

    def count(self, method: str, endpoint: str, status: int, seconds: float) -> None:
        key = (method, endpoint, status)
        children = self._children.get(key)
        if children is None:
            labels = (method, endpoint, str(status))
            children = (
                self._metrics.requests.labels(*labels),
                self._metrics.latency.labels(*labels),
            )
            self._children[key] = children
        requests, latency = children
        requests.inc()  # type: ignore[attr-defined]
        latency.observe(seconds)  # type: ignore[attr-defined]


def init_app(app: Flask, services: Services) -> None:
    """Count every request of the application, and serve /metrics."""
    metrics, settings = services.metrics, services.settings
    counter = _RequestCounter(metrics)
    _start_at_zero(app, metrics)
    exporter = PrometheusMetrics(
        app=None, path=None, export_defaults=False, registry=metrics.registry
    )
    database_metrics = CollectorRegistry(auto_describe=False)
    database_metrics.register(services.database_metrics)

    @app.after_request
    def count(response: Response) -> Response:
        current, state = unproxied(request), request_state()
        method = current.method if current.method in METHODS else "other"
        rule = current.url_rule.rule if current.url_rule else UNMATCHED
        counter.count(method, rule, response.status_code, time.perf_counter() - state.started)
        _count_outcome(metrics, current.endpoint or UNMATCHED, state.problem_code)
        return response

    @app.route("/metrics", methods=["GET"], endpoint="metrics")
    @public
    def show() -> Response:
        """Return the metrics in the format of Prometheus."""
        _require_token(settings)
        text, content_type = exporter.generate_metrics()
        response = Response(text + generate_latest(database_metrics).decode())
        response.headers["Content-Type"] = content_type
        return response


def _start_at_zero(app: Flask, metrics: Metrics) -> None:
    """Create every series with 0: Prometheus sees no increase if a series begins with 1."""
    for outcome in {*LOGIN_OUTCOMES.values(), OTHER}:
        metrics.logins.labels(outcome)
    for outcome in {*REFRESH_OUTCOMES.values(), OTHER}:
        metrics.refreshes.labels(outcome)
    for method in SIGN_IN_METHODS:
        metrics.sign_ins.labels(method)
    for factor in Method:
        for result in MfaOutcome:
            metrics.second_steps.labels(factor, result)
    for outcome in {*STEP_UP_OUTCOMES.values(), OTHER}:
        metrics.step_ups.labels(outcome)
    for outcome in KEY_OUTCOMES:
        metrics.key_checks.labels(outcome)
    for outcome in TOKEN_OUTCOMES:
        metrics.tokens_issued.labels(outcome)
    limited = {name for limit in NAMED_LIMITS for name in limit.endpoints}
    for endpoint in {*limited, TOKEN_ENDPOINT} & app.view_functions.keys():
        metrics.rate_limited.labels(endpoint)


def _count_outcome(metrics: Metrics, endpoint: str, code: str) -> None:
    if endpoint == "auth.login":
        metrics.logins.labels(LOGIN_OUTCOMES.get(code, OTHER)).inc()
    elif endpoint == "auth.refresh":
        metrics.refreshes.labels(REFRESH_OUTCOMES.get(code, OTHER)).inc()
    elif endpoint == "auth.step_up":
        metrics.step_ups.labels(STEP_UP_OUTCOMES.get(code, OTHER)).inc()
    if code == "rate_limited":
        metrics.rate_limited.labels(endpoint).inc()


def _require_token(settings: Settings) -> None:
    if not settings.metrics_token:
        return
    token = bearer_token()
    if not hmac.compare_digest(token.encode(), settings.metrics_token.encode()):
        raise TokenInvalid()
