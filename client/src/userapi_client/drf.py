"""Protects views of Django REST Framework. Needs the extra `drf`."""

from collections.abc import Mapping
from typing import Any

# `views` reads the settings, which name this module, while it is imported itself.
from rest_framework import views
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException, NotAuthenticated
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response

from userapi_client import django
from userapi_client.errors import TokenRefused, Unavailable, UserApiError
from userapi_client.principal import Principal
from userapi_client.requirement import Requirement
from userapi_client.responses import ANSWERED, error_response


class Refused(APIException):
    """An error about the caller, as an exception that REST Framework handles."""

    def __init__(self, error: UserApiError) -> None:
        answer = error_response(error, path="")
        self.status_code = answer.status
        super().__init__(detail=answer.document["detail"], code=answer.document["code"])
        self.error = error
        # Names that REST Framework's own handler reads.
        self.auth_header = answer.headers.get("WWW-Authenticate")
        self.wait = int(answer.headers.get("Retry-After", 0)) or None


class Caller:
    """The `user` of an authenticated request. It is not in a table."""

    is_active = True
    is_anonymous = False
    is_authenticated = True
    is_staff = False
    is_superuser = False

    def __init__(self, principal: Principal) -> None:
        self.principal = principal

    @property
    def id(self) -> str:
        """The id of the caller."""
        return self.principal.id

    @property
    def pk(self) -> str:
        """The id of the caller, under the name that throttles read."""
        return self.principal.id

    @property
    def username(self) -> str:
        """The name of the caller, or their id if the name is unknown."""
        return self.principal.username or self.principal.id

    def __str__(self) -> str:
        return self.username


class BearerAuthentication(BaseAuthentication):
    """Reads the bearer token: `request.user` is a `Caller`, `request.auth` the principal."""

    def authenticate(self, request: Request) -> tuple[Caller, Principal] | None:
        """Return the caller, or None for a request without a bearer token. Raises Refused."""
        try:
            principal = django.known_principal(request) or django.verify(request)
        except (TokenRefused, Unavailable) as exc:
            if isinstance(exc, TokenRefused) and exc.code == "authentication_required":
                return None
            raise Refused(exc) from exc
        return Caller(principal), principal

    def authenticate_header(self, request: Request) -> str:
        """Return the challenge. Without it REST Framework returns 403 instead of 401."""
        return "Bearer"


def requires(
    *permissions: str, fresh: bool = False, max_age: float | None = None, acr: str | None = None
) -> type[BasePermission]:
    """Return a class for `permission_classes` that requires all these permissions.

    `fresh` queries the service, so that revocations take effect immediately. `max_age` (seconds)
    and `acr` require a recent or strong authentication of a person.
    """
    requirement = Requirement(permissions=permissions, fresh=fresh, max_age=max_age, acr=acr)

    class HasPermissions(BasePermission):
        def has_permission(self, request: Request, view: Any) -> bool:
            principal = request.auth
            if not isinstance(principal, Principal):
                raise NotAuthenticated()
            try:
                if fresh:
                    principal = django.verify(request, fresh=True)
                requirement.check(principal)
            except ANSWERED as exc:
                raise Refused(exc) from exc
            return True

    return HasPermissions


def problem_handler(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """Return the response to an error of a view: for errors about the caller a problem document."""
    request: Request = context["request"]
    found = error.error if isinstance(error, Refused) else error
    if isinstance(error, NotAuthenticated):
        found = TokenRefused("authentication_required")
    if not isinstance(found, ANSWERED):
        return views.exception_handler(error, context)
    return django.response_to(request, found)
