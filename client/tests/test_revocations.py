"""What events say about tokens, without a broker."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hostile import AUDIENCE, ISSUER, SESSION, USER

from userapi_client import revocation_state
from userapi_client.claims import AccessToken, read_claims
from userapi_client.revocation_state import RevocationState, Verdict

NOW = 1_790_000_000


def token(**claims: Any) -> AccessToken:
    payload = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": USER,
        "sid": SESSION,
        "jti": "j",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 1800,
        "roles": ["user"],
        "permissions": [],
        **claims,
    }
    return read_claims(payload, issuer=ISSUER, audience=AUDIENCE)


def event(kind: str, *, at: float = NOW, subject: str = USER, **data: Any) -> dict[str, Any]:
    moment = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
    return {"type": kind, "subject": subject, "time": moment, "data": data}


@pytest.fixture
def state() -> RevocationState:
    """Return the state of a subscription that began long before any token."""
    state = RevocationState(leeway=10)
    state.connected(NOW - 1000)
    return state


def verdict(state: RevocationState, found: AccessToken, *, asked: int = 0) -> Verdict:
    return state.verdict(found, asked=asked, now=NOW + 5)


def test_a_token_without_an_event_is_accepted(state: RevocationState) -> None:
    assert verdict(state, token()) is Verdict.ACCEPT


def test_the_end_of_a_session_ends_its_tokens_alone(state: RevocationState) -> None:
    state.apply(event("session.revoked", session_id=SESSION))

    assert verdict(state, token()) is Verdict.REVOKED
    assert verdict(state, token(sid="another")) is Verdict.ACCEPT


def test_a_revoked_key_ends_its_tokens(state: RevocationState) -> None:
    state.apply(event("api_key.revoked", key_id="k1"))

    assert verdict(state, token(client_id=USER, key_id="k1")) is Verdict.REVOKED
    assert verdict(state, token(client_id=USER, key_id="k2")) is Verdict.ACCEPT


def test_a_rotated_key_ends_when_the_event_says(state: RevocationState) -> None:
    end = datetime.fromtimestamp(NOW + 60, UTC).isoformat()
    state.apply(event("api_key.rotated", key_id="k1", expires_at=end))
    found = token(client_id=USER, key_id="k1")

    assert state.verdict(found, asked=0, now=NOW + 59) is Verdict.ACCEPT
    assert state.verdict(found, asked=0, now=NOW + 60) is Verdict.REVOKED


@pytest.mark.parametrize(
    "kind",
    ["user.suspended", "user.deleted", "service_account.suspended", "service_account.deleted"],
)
def test_a_suspension_ends_tokens_of_an_earlier_second(state: RevocationState, kind: str) -> None:
    state.apply(event(kind, at=NOW + 0.5))

    assert verdict(state, token(iat=NOW - 1)) is Verdict.REVOKED
    assert verdict(state, token(iat=NOW)) is Verdict.ASK
    assert verdict(state, token(iat=NOW + 1)) is Verdict.ACCEPT
    assert verdict(state, token(sub="another", iat=NOW - 1)) is Verdict.ACCEPT


@pytest.mark.parametrize(
    "kind", ["user.password_changed", "user.roles_changed", "service_account.roles_changed"]
)
def test_a_change_has_older_tokens_asked_for_once(state: RevocationState, kind: str) -> None:
    """Tokens have whole seconds: to refuse those of the second would refuse the new pair, too."""
    state.apply(event(kind, at=NOW + 0.5))

    assert verdict(state, token()) is Verdict.ASK
    assert verdict(state, token(), asked=state.number) is Verdict.ACCEPT
    assert verdict(state, token(iat=NOW + 1)) is Verdict.ACCEPT
    state.apply(event(kind, at=NOW + 2))
    assert verdict(state, token(), asked=state.number - 1) is Verdict.ASK


def test_a_changed_role_concerns_all_older_tokens(state: RevocationState) -> None:
    for kind in ("role.updated", "role.deleted"):
        state.apply(event(kind, subject="editor"))
        assert verdict(state, token()) is Verdict.ASK
        assert verdict(state, token(), asked=state.number) is Verdict.ACCEPT
        assert verdict(state, token(iat=NOW + 1)) is Verdict.ACCEPT


def test_tokens_from_before_the_subscription_are_asked_for() -> None:
    """The clocks of two machines differ: a few seconds count as before."""
    state = RevocationState(leeway=10)
    assert verdict(state, token()) is Verdict.NO_CONNECTION

    state.connected(NOW - 5)

    assert verdict(state, token()) is Verdict.ASK
    assert verdict(state, token(), asked=state.number) is Verdict.ACCEPT
    assert verdict(state, token(iat=NOW + 6)) is Verdict.ACCEPT


def test_after_a_gap_what_was_known_is_asked_for_again(state: RevocationState) -> None:
    before = state.number
    state.disconnected()
    assert verdict(state, token(), asked=before) is Verdict.NO_CONNECTION

    state.connected(NOW)

    assert verdict(state, token(), asked=before) is Verdict.ASK


def test_revocations_count_in_a_gap(state: RevocationState) -> None:
    state.apply(event("session.revoked", session_id=SESSION))
    state.disconnected()

    assert verdict(state, token()) is Verdict.REVOKED


def test_an_event_that_is_delivered_again_late_changes_nothing(state: RevocationState) -> None:
    state.apply(event("user.suspended", at=NOW + 100))
    state.apply(event("user.suspended", at=NOW - 100))

    assert verdict(state, token(iat=NOW + 50)) is Verdict.REVOKED


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"type": "session.revoked"},
        {"type": "session.revoked", "time": "yesterday", "data": {}},
        {"type": "session.revoked", "time": "2026-01-01T00:00:00", "data": {}},
        {"type": "user.suspended", "time": "2026-01-01T00:00:00Z", "data": {}, "subject": []},
        {"type": ["x"], "time": 5, "data": []},
    ],
)
def test_a_broken_event_changes_nothing(state: RevocationState, broken: dict[str, Any]) -> None:
    state.apply(broken)

    assert verdict(state, token()) is Verdict.ACCEPT


def test_too_many_marks_become_one_for_all(
    state: RevocationState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation_state, "MAX_MARKS", 3)
    for number in range(4):
        state.apply(event("session.revoked", session_id=f"s{number}"))

    assert verdict(state, token(sid="s0")) is Verdict.ASK


def test_answers_of_another_subscription_count_for_nothing() -> None:
    """A forked process has another subscription, and the memory of the first one."""
    first, second = RevocationState(leeway=10), RevocationState(leeway=10)
    first.connected(NOW)
    second.connected(NOW)

    assert verdict(second, token(), asked=first.number) is Verdict.ASK
