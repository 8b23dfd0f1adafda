"""Schemas of authentication."""

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields

from userapi.accounts.addresses import parse_email
from userapi.api.context import current_session, services
from userapi.machines.models import OwnerType

from .fields import Choice, Moment, PastedText, StrictBoolean, Text
from .requests import OptionalBody, StrictSchema
from .user_fields import Password
from .users import User

MAX_IDENTIFIER_CHARACTERS = 320


class Login(StrictSchema):
    """User name or e-mail address, and the password."""

    username = PastedText(
        required=True,
        min_length=1,
        max_length=MAX_IDENTIFIER_CHARACTERS,
        metadata={"description": "User name or e-mail address.", "example": "admin"},
    )
    password = Password(required=True)
    remember_me = StrictBoolean(metadata={"description": "Use the longer session lifetime."})


class Tokens(Schema):
    """A pair of tokens."""

    access_token = fields.String(metadata={"example": "eyJhbGciOiJIUzI1NiIsInR5cCI6ImF0K2p3dCJ9.…"})
    refresh_token = fields.String(
        metadata={"example": "eyJhbGciOiJIUzI1NiIsInR5cCI6InJ0K2p3dCJ9.…"}
    )
    token_type = fields.Constant("bearer")
    expires_in = fields.Integer(metadata={"example": 1800, "description": "Seconds."})
    refresh_expires_in = fields.Integer(
        metadata={
            "example": 604800,
            "description": "Seconds until the session ends. It ends earlier if it is not used.",
        }
    )
    session_id = fields.UUID()


class LoginResult(Tokens):
    """A pair of tokens and its user."""

    user = fields.Nested(User)


class Refresh(StrictSchema):
    """A refresh token."""

    refresh_token = Text(
        required=True,
        load_only=True,
        metadata={"example": "eyJhbGciOiJIUzI1NiIsInR5cCI6InJ0K2p3dCJ9.…"},
    )


class Logout(OptionalBody):
    """Whether to end every session."""

    all_sessions = StrictBoolean()


class PasswordChange(StrictSchema):
    """The current password and the new one."""

    current_password = Password(required=True)
    new_password = Password(required=True, metadata={"example": "granite-otter-57-teapot"})

    def require_valid(self, given: Mapping[str, Any]) -> None:
        """Raise Invalid with every rule that the new password breaks."""
        if "new_password" in given:
            user = services().accounts.get(current_session().user_id)
            services().policy.require(
                given["new_password"],
                username=user.username,
                email=user.email,
                field="new_password",
            )


class PasswordQuestion(StrictSchema):
    """A password to check, and its user."""

    password = Password(required=True)
    username = PastedText(max_length=256, allow_none=True)
    email = PastedText(max_length=320, allow_none=True)


class PasswordIssue(Schema):
    """A rule that the password breaks."""

    code = fields.String(metadata={"example": "too_short"})
    message = fields.String(metadata={"example": "Must be at least 8 characters."})


class PasswordStrength(Schema):
    """The estimated strength of a password."""

    acceptable = fields.Boolean(metadata={"example": True})
    score = fields.Integer(
        metadata={"example": 4, "description": "From 0, guessed immediately, to 4."}
    )
    issues = fields.List(fields.Nested(PasswordIssue))
    suggestions = fields.List(fields.String(), metadata={"example": []})


class Myself(User):
    """The signed-in user, their permissions, and the session."""

    actor_type = Choice(OwnerType, metadata={"example": "user"})
    permissions = fields.List(fields.String(), metadata={"example": ["users:read"]})
    session_id = fields.UUID(allow_none=True)
    key_id = fields.UUID(allow_none=True)
    acr = fields.String(metadata={"enum": ["aal1", "aal2"], "example": "aal1"})
    amr = fields.List(fields.String(), metadata={"example": ["pwd"]})
    authenticated_at = Moment()
    mfa_enrollment_required = fields.Boolean(metadata={"example": False})


class Verified(Schema):
    """The state of the token."""

    active = fields.Constant(True)
    user_id = fields.UUID()
    actor_type = Choice(OwnerType, metadata={"example": "user"})
    session_id = fields.UUID(allow_none=True)
    key_id = fields.UUID(allow_none=True)
    roles = fields.List(fields.String(), metadata={"example": ["moderator"]})
    permissions = fields.List(fields.String(), metadata={"example": ["users:read"]})
    expires_at = Moment(allow_none=True)
    acr = fields.String(metadata={"enum": ["aal1", "aal2"], "example": "aal1"})
    amr = fields.List(fields.String(), metadata={"example": ["pwd"]})
    authenticated_at = Moment()


class PasswordResetRequest(StrictSchema):
    """The address of the account."""

    email = PastedText(
        required=True, min_length=1, max_length=320, metadata={"example": "ada@example.com"}
    )


class PasswordResetConfirmation(StrictSchema):
    """The token of the mail and the new password."""

    token = PastedText(required=True, load_only=True, metadata={"example": "Zm9y…"})
    new_password = Password(required=True, metadata={"example": "granite-otter-57-teapot"})
    revoke_api_keys = StrictBoolean(
        metadata={"default": True, "description": "Also revoke the API keys of the user."}
    )

    def require_valid(self, given: Mapping[str, Any]) -> None:
        """Raise Invalid with every rule that the new password breaks for any user."""
        if "new_password" in given:
            services().policy.require(given["new_password"], field="new_password")


class EmailVerification(StrictSchema):
    """The token of the mail."""

    token = PastedText(required=True, load_only=True, metadata={"example": "Zm9y…"})


class EmailChange(StrictSchema):
    """The new address and the current password."""

    new_email = PastedText(required=True, max_length=320, metadata={"example": "ada@example.org"})
    current_password = Password(required=True)

    def require_valid(self, given: Mapping[str, Any]) -> None:
        """Raise Invalid for an invalid address."""
        if "new_email" in given:
            parse_email(given["new_email"], field="new_email")


class Accepted(Schema):
    """The request was accepted. A mail is sent if the account exists."""

    status = fields.Constant("accepted")


class TokenQuestion(StrictSchema):
    """A token, as a form or as JSON."""

    accepts_form = True

    token = Text(
        required=True,
        load_only=True,
        metadata={"example": "eyJhbGciOiJIUzI1NiIsInR5cCI6ImF0K2p3dCJ9.…"},
    )
    token_type_hint = Text(load_only=True)


class Introspected(Schema):
    """The state of a token. An invalid token has only `active`."""

    active = fields.Boolean()
    sub = fields.UUID()
    sid = fields.UUID()
    username = fields.String(metadata={"example": "ada"})
    scope = fields.String(
        metadata={
            "example": "users:read sessions:read",
            "description": "Permissions, separated by spaces.",
        }
    )
    roles = fields.List(fields.String(), metadata={"example": ["moderator"]})
    actor_type = Choice(OwnerType, metadata={"example": "service"})
    client_id = fields.UUID()
    key_id = fields.UUID()
    allowed_networks = fields.List(fields.String(), metadata={"example": ["192.0.2.0/24"]})
    token_type = fields.String(
        metadata={"enum": ["access", "refresh", "api_key"], "example": "access"}
    )
    exp = fields.Integer(metadata={"example": 1790000000})
    iat = fields.Integer(metadata={"example": 1789998200})
    iss = fields.String(metadata={"example": "aima-user-service"})
    aud = fields.String(metadata={"example": "aima"})
    jti = fields.String(metadata={"example": "019a2f6e-4a00-7c11-8f00-000000000000"})
    acr = fields.String(metadata={"enum": ["aal1", "aal2"], "example": "aal1"})
    amr = fields.List(fields.String(), metadata={"example": ["pwd"]})
    auth_time = fields.Integer(metadata={"example": 1789998200})


class SessionItem(Schema):
    """A session."""

    id = fields.UUID()
    created_at = Moment()
    last_used_at = Moment()
    expires_at = Moment()
    ip_address = fields.String(allow_none=True, metadata={"example": "192.0.2.7"})
    user_agent = fields.String(
        allow_none=True,
        metadata={"example": "Mozilla/5.0 (Windows NT 10.0; rv:140.0) Firefox/140.0"},
    )
    device = fields.String(metadata={"example": "Firefox on Windows"})
    current = fields.Boolean()
    acr = fields.String(metadata={"enum": ["aal1", "aal2"], "example": "aal1"})
    amr = fields.List(fields.String(), metadata={"example": ["pwd"]})
    authenticated_at = Moment()


class SessionList(Schema):
    """Sessions."""

    items = fields.List(fields.Nested(SessionItem))
