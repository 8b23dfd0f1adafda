# Generated from asynchronous/resources.py by scripts/generate_synchronous.py; do not edit.
"""The resources of the REST API, with the names that the service uses."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from userapi_client import requests
from userapi_client.credentials import Tokens
from userapi_client.model_base import each, member, text
from userapi_client.models import (
    AuditEntry,
    BulkAnswer,
    ExplainedPermission,
    ImportAnswer,
    ImportJob,
    ImportResult,
    KnownPermission,
    Myself,
    PasswordStrength,
    Role,
    Session,
    Statistics,
    TokenPair,
    User,
)
from userapi_client.page import Page, read_page
from userapi_client.synchronous.resource import Collection, Resource, Sender
from userapi_client.token_pair import HeldToken, held


class AuthApi(Resource):
    """The caller's own account, session and tokens."""

    def __init__(
        self,
        sender: Sender,
        *,
        adopt: Callable[[HeldToken], None],
        refresh: Callable[[], Tokens],
    ) -> None:
        super().__init__(sender)
        self._adopt = adopt
        self._refresh = refresh

    def me(self) -> Myself:
        """Return the user of this client and their permissions."""
        return Myself.read(self._value("GET", "/auth/me"))

    def sessions(self) -> tuple[Session, ...]:
        """Return the sessions of this user."""
        return read_page(self._value("GET", "/auth/sessions"), Session.read).items

    def end_session(self, id: str) -> None:
        """End one session of this user."""
        self._done("DELETE", f"/auth/sessions/{requests.segment(id)}")

    def end_other_sessions(self) -> int:
        """End all sessions of this user except the current one; return how many."""
        return _revoked(self._value("DELETE", "/auth/sessions"))

    def logout(self, *, all_sessions: bool = False) -> None:
        """End the session of this client, or all sessions of its user."""
        self._done("POST", "/auth/logout", json={"all_sessions": all_sessions})

    def refresh(self) -> Tokens:
        """Refresh the tokens of this client now, so that they contain new roles.

        The client refreshes tokens by itself before they expire. Raises UserApiError
        for a client without a session of a person.
        """
        return self._refresh()

    def change_password(self, current_password: str, new_password: str) -> Tokens:
        """Set a new password. All other sessions end; this client continues with the new tokens."""
        body = {"current_password": current_password, "new_password": new_password}
        return self._continued("/auth/change-password", body)

    def step_up(self, **proof: Any) -> Tokens:
        """Authenticate again, by `password`, `code` or `credential`.

        This client continues with the new tokens; the former ones are invalid.
        """
        return self._continued("/auth/step-up", proof)

    def change_email(self, new_email: str, current_password: str) -> None:
        """Request a change of the address. The new address receives a mail to confirm it."""
        body = {"new_email": new_email, "current_password": current_password}
        self._done("POST", "/auth/change-email", json=body)

    def password_strength(self, password: str, **context: str) -> PasswordStrength:
        """Estimate the strength of a password. `username` and `email` are optional."""
        body = {"password": password, **context}
        return PasswordStrength.read(self._value("POST", "/auth/password-strength", json=body))

    def register(self, *, idempotency_key: str | None = None, **fields: Any) -> User | None:
        """Register an account; None if the service does not reveal whether the address is taken."""
        answer = self._value(
            "POST",
            "/auth/register",
            json=fields,
            idempotency_key=idempotency_key or requests.new_idempotency_key(),
        )
        return User.read(answer) if isinstance(answer, dict) and "id" in answer else None

    def request_password_reset(self, email: str) -> None:
        """Request a mail to set a new password. The response is the same for every address."""
        self._done("POST", "/auth/reset-password", json={"email": email})

    def confirm_password_reset(self, token: str, new_password: str) -> None:
        """Set a new password with the token of a mail."""
        body = {"token": token, "new_password": new_password}
        self._done("POST", "/auth/reset-password/confirm", json=body)

    def verify_email(self, token: str) -> None:
        """Verify an address with the token of a mail."""
        self._done("POST", "/auth/verify-email", json={"token": token})

    def introspect(self, token: str) -> dict[str, Any]:
        """Return the state of a token (RFC 7662)."""
        answer = self._value("POST", "/auth/introspect", data={"token": token})
        return dict(answer) if isinstance(answer, dict) else {"active": False}

    def revoke(self, token: str) -> None:
        """End the session of a token, or revoke a key (RFC 7009). Ignores invalid tokens."""
        self._done("POST", "/auth/revoke", data={"token": token})

    def _continued(self, path: str, body: dict[str, Any]) -> Tokens:
        """Send a request that replaces the tokens of this session, and use the new pair."""
        answer = self._value("POST", path, json=body)
        pair = TokenPair.read(answer)
        self._adopt(held(answer, with_refresh=True))
        return Tokens(pair.access_token, pair.refresh_token)


class UsersApi(Collection[User]):
    """The users."""

    def __init__(self, sender: Sender) -> None:
        super().__init__(sender, path="/users/", read=User.read)

    def suspend(self, id: str, *, reason: str | None = None, until: datetime | None = None) -> User:
        """Suspend a user; all their sessions end."""
        body = {"reason": reason, "until": until}
        return self._one("POST", self._path_of(id, "suspend"), json=requests.given(body))

    def activate(self, id: str, *, reason: str | None = None) -> User:
        """Activate a pending or suspended user."""
        body = requests.given({"reason": reason})
        return self._one("POST", self._path_of(id, "activate"), json=body)

    def unlock(self, id: str, *, reason: str | None = None) -> User:
        """Clear the failed log-ins of a user, which also ends a lock."""
        body = requests.given({"reason": reason})
        return self._one("POST", self._path_of(id, "unlock"), json=body)

    def reset_password(self, id: str) -> None:
        """Mail a link to set a new password, and end all sessions of the user."""
        self._done("POST", self._path_of(id, "reset-password"))

    def roles(self, id: str) -> tuple[str, ...]:
        """Return the roles of a user."""
        return _names(self._value("GET", self._path_of(id, "roles")))

    def set_roles(
        self, id: str, roles: Iterable[str], *, if_match: str | None = None
    ) -> tuple[str, ...]:
        """Replace the roles of a user."""
        body = {"roles": list(roles)}
        path = self._path_of(id, "roles")
        return _names(self._value("PUT", path, json=body, if_match=if_match))

    def permissions(self, id: str) -> tuple[ExplainedPermission, ...]:
        """Return the permissions of a user, each with the roles that grant it."""
        answer = self._value("GET", self._path_of(id, "permissions"))
        return read_page(answer, ExplainedPermission.read).items

    def sessions(self, id: str) -> tuple[Session, ...]:
        """Return the sessions of a user."""
        answer = self._value("GET", self._path_of(id, "sessions"))
        return read_page(answer, Session.read).items

    def end_sessions(self, id: str) -> int:
        """End all sessions of a user; return how many."""
        return _revoked(self._value("DELETE", self._path_of(id, "sessions")))

    def end_session(self, id: str, session_id: str) -> None:
        """End one session of a user."""
        path = self._path_of(id, "sessions", requests.segment(session_id))
        self._done("DELETE", path)

    def activity(self, id: str, **filters: Any) -> Iterator[AuditEntry]:
        """Iterate over the audit entries of a user, newest first."""
        for entry in self._each(self._path_of(id, "activity"), AuditEntry.read, filters):
            yield entry

    def bulk(
        self,
        action: str,
        user_ids: Sequence[str],
        *,
        reason: str | None = None,
        role: str | None = None,
    ) -> BulkAnswer:
        """Apply one action to up to 1000 users, each independently."""
        body = {"action": action, "user_ids": list(user_ids), "reason": reason, "role": role}
        return BulkAnswer.read(self._value("POST", "/users/bulk", json=requests.given(body)))

    def import_rows(
        self, content: bytes, *, content_type: str = "application/x-ndjson", dry_run: bool = False
    ) -> ImportAnswer | ImportJob:
        """Import users from NDJSON or CSV. The worker imports large files as a job."""
        answer = self._value(
            "POST",
            "/users/import",
            content=content,
            headers={"Content-Type": content_type},
            params={"dry_run": dry_run},
        )
        is_job = isinstance(answer, dict) and "state" in answer
        return ImportJob.read(answer) if is_job else ImportAnswer.read(answer)

    def import_job(self, id: str) -> ImportJob:
        """Return the progress of an import."""
        path = f"/users/imports/{requests.segment(id)}"
        return ImportJob.read(self._value("GET", path))

    def import_results(self, id: str) -> Iterator[ImportResult]:
        """Iterate over the results of an import, row by row."""
        path = f"/users/imports/{requests.segment(id)}/results"
        for result in self._each(path, ImportResult.read, {}):
            yield result

    def cancel_import(self, id: str) -> None:
        """Cancel the remaining rows of an import."""
        self._done("DELETE", f"/users/imports/{requests.segment(id)}")

    def statistics(self, *, days: int = 30) -> Statistics:
        """Return statistics about all users."""
        return Statistics.read(self._value("GET", "/users/stats", params={"days": days}))


class RolesApi(Collection[Role]):
    """The roles. Their id is their name."""

    def __init__(self, sender: Sender) -> None:
        super().__init__(sender, path="/roles/", read=Role.read)

    def page(self, **filters: Any) -> Page[Role]:
        """Return all roles: the list has no pages."""
        return self._page(self._path, self._item, filters)

    def iter(self, **filters: Any) -> Iterator[Role]:
        """Iterate over all roles."""
        for role in (self.page(**filters)).items:
            yield role

    def update(self, id: str, *, if_match: str | None = None, **fields: Any) -> Role:
        """Change these fields of a custom role. Other fields stay unchanged."""
        return self._one("PUT", self._path_of(id), json=fields, if_match=if_match)

    def permissions(self) -> tuple[KnownPermission, ...]:
        """Return the permissions that the service defines."""
        answer = self._value("GET", "/roles/permissions")
        return read_page(answer, KnownPermission.read).items


class AuditApi(Resource):
    """The audit log, newest entries first."""

    def page(self, **filters: Any) -> Page[AuditEntry]:
        """Return one page of the entries that match the filters."""
        return self._page("/audit-logs/", AuditEntry.read, filters)

    def iter(self, **filters: Any) -> Iterator[AuditEntry]:
        """Iterate over the entries that match the filters."""
        for entry in self._each("/audit-logs/", AuditEntry.read, filters):
            yield entry


def _revoked(answer: Any) -> int:
    return int(answer["revoked"]) if isinstance(answer, dict) and "revoked" in answer else 0


def _names(answer: Any) -> tuple[str, ...]:
    return member(answer if isinstance(answer, dict) else {}, "roles", each(text))
