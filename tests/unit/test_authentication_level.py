"""How a session was authenticated: levels, methods, and what is stored of them."""

from datetime import UTC, datetime

import pytest

from userapi.sessions.authentication_level import (
    OTP,
    PASSKEY,
    PWD,
    RECOVERY,
    authenticated_by,
    stored_authentication,
    union,
)

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("methods", "acr", "amr"),
    [
        (PWD, "aal1", {"pwd"}),
        (OTP, "aal2", {"otp", "mfa"}),
        (RECOVERY, "aal2", {"recovery", "mfa"}),
        (PASSKEY, "aal2", {"pop", "user", "mfa"}),
        (union(PWD, OTP), "aal2", {"pwd", "otp", "mfa"}),
    ],
)
def test_a_second_factor_or_a_recovery_code_reaches_the_second_level(
    methods: tuple[str, ...], acr: str, amr: set[str]
) -> None:
    proof = authenticated_by(methods, at=NOON)

    assert (proof.acr, set(proof.amr), proof.authenticated_at) == (acr, amr, NOON)


def test_a_method_is_named_once_however_often_it_was_used() -> None:
    assert union(PWD, OTP, PWD, RECOVERY, OTP) == ("pwd", "otp", "mfa", "recovery")


def test_what_is_stored_is_read_back_and_fits_the_column() -> None:
    proof = authenticated_by(union(PWD, OTP, RECOVERY, PASSKEY), at=NOON)
    columns = proof.columns

    assert len(str(columns["amr"])) <= 64
    assert stored_authentication(str(columns["acr"]), str(columns["amr"]), NOON) == proof
