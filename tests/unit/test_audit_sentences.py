"""The sentences of the audit log: every action has one, with names, reasons and changes."""

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from sqlalchemy import Row

from userapi.actor import ActorType
from userapi.audit.actions import AuditAction, Outcome
from userapi.console.audit_sentences import SENTENCES, sentence

ADA = "019a2f6e-3c1d-7b52-9d3e-5f0a4c7b8e21"
GRACE = "019a2f6e-3c1d-7b52-9d3e-5f0a4c7b8e22"
NAMES = {ADA: "Ada", GRACE: "Grace"}


@dataclass(frozen=True, kw_only=True)
class RecordedRow:
    """A row of the audit log."""

    action: AuditAction
    outcome: Outcome = Outcome.SUCCESS
    actor_id: str | None = ADA
    actor_username: str | None = "Ada"
    actor_type: str = ActorType.USER
    target_type: str | None = "user"
    target_id: str | None = GRACE
    changes: dict[str, Any] | None = None
    details: dict[str, Any] | None = field(default=None)


def told(**values: Any) -> str:
    return sentence(cast(Row[Any], RecordedRow(**values)), NAMES)


@pytest.mark.parametrize("action", AuditAction)
def test_every_action_has_a_sentence_of_its_own(action: AuditAction) -> None:
    assert action in SENTENCES
    for outcome in Outcome:
        text = told(action=action, outcome=outcome)
        assert "{" not in text and str(action) not in text
        assert "Ada" in text or "Grace" in text


def test_no_two_actions_have_the_same_sentence() -> None:
    assert len({told(action=action) for action in AuditAction}) == len(AuditAction)


@pytest.mark.parametrize("action", AuditAction)
def test_a_row_without_names_is_a_sentence_too(action: AuditAction) -> None:
    text = told(
        action=action,
        actor_id=None,
        actor_username=None,
        actor_type=ActorType.ANONYMOUS,
        target_type=None,
        target_id=None,
    )

    assert "None" not in text and text[0].isupper()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"action": AuditAction.USER_SUSPENDED, "details": {"reason": "chargeback"}},
            "Ada suspended Grace: chargeback",
        ),
        (
            {"action": AuditAction.USER_SUSPENDED, "details": {"reason": None}},
            "Ada suspended Grace",
        ),
        (
            {
                "action": AuditAction.USER_ROLES_CHANGED,
                "changes": {"roles": [["user"], ["admin", "user"]]},
            },
            "Ada changed the roles of Grace: +admin",
        ),
        (
            {
                "action": AuditAction.USER_UPDATED,
                "changes": {"first_name": ["A", "B"], "locale": [None, "de"]},
            },
            "Ada changed the profile of Grace: First name, Language",
        ),
        (
            {
                "action": AuditAction.USER_DELETED,
                "target_id": "019a2f6e-3c1d-7b52-9d3e-5f0a4c7b8e99",
                "details": {"username": "gone", "reason": None},
            },
            "Ada deleted gone",
        ),
        (
            {
                "action": AuditAction.USER_EMAIL_CHANGED,
                "changes": {"email": ["a@example.com", "b@example.com"]},
            },
            "Ada changed the e-mail address of Grace: a@example.com → b@example.com",
        ),
        (
            {
                "action": AuditAction.SESSION_REVOKED,
                "target_type": "session",
                "target_id": "019a2f6e-3c1d-7b52-9d3e-5f0a4c7b8e33",
                "details": {"reason": "account_suspended", "user_id": GRACE},
            },
            "Ada ended a session of Grace: the account was suspended",
        ),
        (
            {
                "action": AuditAction.AUTH_LOGIN,
                "outcome": Outcome.FAILURE,
                "actor_id": None,
                "actor_username": None,
                "actor_type": ActorType.ANONYMOUS,
                "details": {"reason": "invalid_credentials"},
            },
            "A log-in as Grace failed: wrong name or password",
        ),
        (
            {
                "action": AuditAction.AUTH_PERMISSION_DENIED,
                "outcome": Outcome.DENIED,
                "details": {"code": "permission_denied", "permission": "users:delete"},
            },
            "Ada lacked a permission: users:delete",
        ),
        (
            {"action": AuditAction.AUTH_PASSWORD_CHANGED, "target_id": ADA},
            "Ada changed the password of their own account",
        ),
        (
            {"action": AuditAction.ROLE_CREATED, "target_type": "role", "target_id": "editor"},
            "Ada created the role editor",
        ),
        (
            {
                "action": AuditAction.USER_ACTIVATED,
                "actor_id": None,
                "actor_username": "worker",
                "actor_type": ActorType.SYSTEM,
                "details": {"reason": "until_reached"},
            },
            "worker activated Grace: the suspension has expired",
        ),
        (
            {"action": AuditAction.USER_INVITED, "outcome": Outcome.FAILURE},
            "Ada invited Grace – without success",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_sentence_names_people_and_reasons(values: dict[str, Any], expected: str) -> None:
    assert told(**values) == expected
