"""Protects Django views. Needs the extra `django`.

settings.USERAPI has BASE_URL, ISSUER, AUDIENCE and, in upper case, arguments of `Verifier`.
"""

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from userapi_client.asynchronous.verifier import AsyncVerifier
from userapi_client.errors import TokenRefused, Unavailable, UserApiError
from userapi_client.principal import Principal
from userapi_client.requirement import Requirement
from userapi_client.responses import ANSWERED, bearer_token, error_response
from userapi_client.synchronous.verifier import Verifier

View = Callable[..., Any]
_REFUSAL = "userapi_refusal"


class _Verifiers:
    """The verifiers of this process, created from settings.USERAPI when they are first used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sync: Verifier | None = None
        self._async: AsyncVerifier | None = None

    def sync(self) -> Verifier:
        with self._lock:
            if self._sync is None:
                self._sync = Verifier(**self._arguments("TRANSPORT"))
            return self._sync

    def asynchronous(self) -> AsyncVerifier:
        with self._lock:
            if self._async is None:
                self._async = AsyncVerifier(**self._arguments("ASYNC_TRANSPORT"))
            return self._async

    def _arguments(self, transport: str) -> dict[str, Any]:
        configured = dict(settings.USERAPI)
        found = {"TRANSPORT": configured.pop("TRANSPORT", None)}
        found["ASYNC_TRANSPORT"] = configured.pop("ASYNC_TRANSPORT", None)
        arguments = {name.lower(): value for name, value in configured.items()}
        return {**arguments, "transport": found[transport]}


_verifiers = _Verifiers()


class UserApiMiddleware:
    """Sets `request.principal` to the caller, or to None where there is no valid token.

    It rejects no request: views do, with `@required`. Errors about the caller that a view raises
    become problem documents.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Handle a request, synchronously or asynchronously, like the next handler."""
        if iscoroutinefunction(self):
            return self._handle_async(request)
        _begin(request)
        if _has_token(request):
            try:
                request.principal = verify(request)
            except (TokenRefused, Unavailable) as exc:
                setattr(request, _REFUSAL, exc)
        return self._get_response(request)

    async def _handle_async(self, request: HttpRequest) -> HttpResponseBase:
        _begin(request)
        if _has_token(request):
            try:
                request.principal = await verify_async(request)
            except (TokenRefused, Unavailable) as exc:
                setattr(request, _REFUSAL, exc)
        response: HttpResponseBase = await self._get_response(request)
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Handle errors that views raise, for example by `request.principal.require(…)`."""
        return response_to(request, error) if isinstance(error, ANSWERED) else None


def required(
    *permissions: str, fresh: bool = False, max_age: float | None = None, acr: str | None = None
) -> Callable[[View], View]:
    """Require that the caller has all these permissions. Also for asynchronous views.

    `fresh` queries the service, so that revocations take effect immediately. `max_age` (seconds)
    and `acr` require a recent or strong authentication of a person.
    """
    requirement = Requirement(permissions=permissions, fresh=fresh, max_age=max_age, acr=acr)

    def decorate(view: View) -> View:
        if iscoroutinefunction(view):

            @wraps(view)
            async def protected_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                try:
                    principal = None if fresh else known_principal(request)
                    if principal is None:
                        principal = await verify_async(request, fresh=fresh)
                    requirement.check(principal)
                except ANSWERED as exc:
                    return response_to(request, exc)
                request.principal = principal
                return await view(request, *args, **kwargs)

            return protected_async

        @wraps(view)
        def protected(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                principal = None if fresh else known_principal(request)
                if principal is None:
                    principal = verify(request, fresh=fresh)
                requirement.check(principal)
            except ANSWERED as exc:
                return response_to(request, exc)
            request.principal = principal
            return view(request, *args, **kwargs)

        return protected

    return decorate


def known_principal(request: HttpRequest) -> Principal | None:
    """Return the caller that the middleware has verified. Raises the error of the verification."""
    refusal: UserApiError | None = getattr(request, _REFUSAL, None)
    if refusal is not None:
        raise refusal
    found: Principal | None = getattr(request, "principal", None)
    return found


def verify(request: HttpRequest, *, fresh: bool = False) -> Principal:
    """Return the caller of a request. Raises TokenRefused, Unavailable."""
    token = bearer_token(request.META.get("HTTP_AUTHORIZATION"))
    return _verifiers.sync().verify(token, fresh=fresh, address=request.META.get("REMOTE_ADDR"))


async def verify_async(request: HttpRequest, *, fresh: bool = False) -> Principal:
    """Return the caller of a request. Raises TokenRefused, Unavailable."""
    token = bearer_token(request.META.get("HTTP_AUTHORIZATION"))
    return await _verifiers.asynchronous().verify(
        token, fresh=fresh, address=request.META.get("REMOTE_ADDR")
    )


def response_to(request: HttpRequest, error: UserApiError) -> HttpResponse:
    """Return the problem document for an error about the caller."""
    answer = error_response(
        error, path=request.path, correlation_id=request.META.get("HTTP_X_CORRELATION_ID")
    )
    return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))


def _begin(request: HttpRequest) -> None:
    request.principal = None


def _has_token(request: HttpRequest) -> bool:
    return "HTTP_AUTHORIZATION" in request.META
