"""Protects Flask views. Needs the extra `flask`."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, cast

from flask import Flask, Response, current_app, g, request
from werkzeug.local import LocalProxy

from userapi_client.errors import UserApiError
from userapi_client.principal import Principal
from userapi_client.requirement import Requirement
from userapi_client.responses import ANSWERED, CORRELATION_ID, bearer_token, error_response
from userapi_client.synchronous.verifier import Verifier

P = ParamSpec("P")
_NAME = "userapi_principal"


def _principal() -> Principal:
    found = g.get(_NAME)
    if found is None:
        raise RuntimeError("The view is not protected: put @auth.required(…) below its route.")
    return cast(Principal, found)


current_principal = cast(Principal, LocalProxy(_principal))
"""The caller of the protected view that is running."""


class UserApi:
    """Protects the views of an application with one verifier."""

    def __init__(self, verifier: Verifier, app: Flask | None = None) -> None:
        """Without `app`, call `init_app` later."""
        self._verifier = verifier
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Handle errors that views raise, for example by `current_principal.require(…)`."""
        for error in ANSWERED:
            app.register_error_handler(error, _response)

    def required(
        self,
        *permissions: str,
        fresh: bool = False,
        max_age: float | None = None,
        acr: str | None = None,
    ) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
        """Require that the caller has all these permissions. Put it below the route.

        `fresh` queries the service, so that revocations take effect immediately. `max_age`
        (seconds) and `acr` require a recent or strong authentication of a person.
        """
        requirement = Requirement(permissions=permissions, fresh=fresh, max_age=max_age, acr=acr)

        def decorate(view: Callable[P, Any]) -> Callable[P, Any]:
            @wraps(view)
            def protected(*args: P.args, **kwargs: P.kwargs) -> Any:
                try:
                    setattr(g, _NAME, self._verified(requirement))
                except ANSWERED as exc:
                    return _response(exc)
                return current_app.ensure_sync(view)(*args, **kwargs)

            return protected

        return decorate

    def _verified(self, requirement: Requirement) -> Principal:
        token = bearer_token(request.headers.get("Authorization"))
        principal = self._verifier.verify(
            token, fresh=requirement.fresh, address=request.remote_addr
        )
        requirement.check(principal)
        return principal


def _response(error: UserApiError) -> Response:
    answer = error_response(
        error, path=request.path, correlation_id=request.headers.get(CORRELATION_ID)
    )
    return Response(answer.body, answer.status, headers=dict(answer.headers))
