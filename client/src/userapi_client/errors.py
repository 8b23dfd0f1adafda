"""The errors of this package. No text of an error contains a token, key or secret."""

from collections.abc import Mapping, Sequence
from typing import Any

TITLES = {
    "authentication_required": "Authentication is required.",
    "insufficient_user_authentication": "A more recent or stronger authentication is required.",
    "interactive_session_required": "This operation needs the session of a person.",
    "mfa_enrollment_required": "Add a second factor first.",
    "network_not_allowed": "This key cannot be used from this network.",
    "password_change_required": "Change your password first.",
    "permission_denied": "You do not have the permission for this.",
    "service_unavailable": "The service is temporarily unavailable. Try again.",
    "token_expired": "The token has expired.",
    "token_invalid": "The token is not valid.",
    "token_revoked": "The token has been revoked.",
    "user_required": "This operation needs a user.",
}


class UserApiError(Exception):
    """Base of all errors of this package."""


class TokenRefused(UserApiError):
    """The caller's token or key is missing or not accepted; `code` says why.

    `status` is 401, or 403 if other credentials would not help, for example `network_not_allowed`.
    """

    def __init__(self, code: str, status: int = 401) -> None:
        super().__init__(code, status)
        self.code = code
        self.status = status

    @property
    def title(self) -> str:
        """A sentence for people."""
        return TITLES.get(self.code, TITLES["token_invalid"])

    def __str__(self) -> str:
        return f"{self.code}: {self.title}"


class FreshAuthenticationRequired(TokenRefused):
    """The session is valid, but its authentication is too old or too weak (RFC 9470)."""

    def __init__(self, max_age: int | None = None, acr: str | None = None) -> None:
        super().__init__("insufficient_user_authentication", 401)
        self.args = (max_age, acr)
        self.max_age = max_age
        self.acr = acr


class PermissionDenied(UserApiError):
    """The caller is known and lacks `permission`."""

    def __init__(self, permission: str) -> None:
        super().__init__(permission)
        self.permission = permission

    def __str__(self) -> str:
        return f"permission_denied: {self.permission} is missing."


class Unavailable(UserApiError):
    """The service is unavailable or its response is invalid; try again in `retry_after` seconds.

    The token may be valid, so return 503 and never 401.
    """

    def __init__(
        self,
        retry_after: float | None = None,
        detail: str = "The User Management Service does not respond.",
    ) -> None:
        super().__init__(retry_after, detail)
        self.retry_after = retry_after
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class Problem(UserApiError):
    """The service rejected a request (RFC 9457). Switch on `code`; texts may change."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str = "",
        detail: str = "",
        errors: Sequence[Mapping[str, Any]] = (),
        correlation_id: str | None = None,
        retry_after: float | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        # Not super(): a subclass also inherits from Unavailable, which has other arguments.
        UserApiError.__init__(
            self, status, code, title, detail, errors, correlation_id, retry_after, body
        )
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.errors = tuple(errors)
        self.correlation_id = correlation_id
        self.retry_after = retry_after
        self.body: Mapping[str, Any] = body or {}

    def __str__(self) -> str:
        fields = ", ".join(f"{item.get('field')}: {item.get('message')}" for item in self.errors)
        text = f"{self.status} {self.code}: {self.detail or self.title}"
        return text + (f" [{fields}]" if fields else "") + f" ({self.correlation_id})"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"


class ProblemUnavailable(Problem, Unavailable):
    """The service, or a proxy in front of it, returned 502, 503 or 504 to the last retry."""


class Stale(Problem):
    """The resource has changed since it was read (412). Read it again and decide again.

    `may_be_own` is true if an earlier attempt of the same request, whose response was lost, may
    have made the change.
    """

    may_be_own: bool = False


class SessionEnded(Problem):
    """The session of this client has ended. Log in again."""


class OAuthError(UserApiError):
    """The token endpoint rejected the client (RFC 6749 §5.2)."""

    def __init__(self, error: str, description: str | None = None) -> None:
        super().__init__(error, description)
        self.error = error
        self.description = description

    def __str__(self) -> str:
        return self.error + (f": {self.description}" if self.description else "")
