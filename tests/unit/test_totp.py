"""Codes of authenticator apps, against the vectors of RFC 6238."""

import base64
from datetime import UTC, datetime

import pytest

from userapi.factors.recovery_codes import plain_code
from userapi.factors.totp import has_form_of_code, new_secret, step_of_code

# RFC 6238 Appendix B, the last six digits of the codes for SHA-1.
SECRET = base64.b32encode(b"12345678901234567890").decode()
VECTORS = {
    59: "287082",
    1111111109: "081804",
    1111111111: "050471",
    1234567890: "005924",
    2000000000: "279037",
    20000000000: "353130",
}


@pytest.mark.parametrize(("seconds", "code"), VECTORS.items())
def test_codes_are_those_of_the_standard(seconds: int, code: str) -> None:
    now = datetime.fromtimestamp(seconds, UTC)

    assert step_of_code(SECRET, code, now=now) == seconds // 30


@pytest.mark.parametrize(("steps", "accepted"), [(-2, False), (-1, True), (1, True), (2, False)])
def test_a_code_is_valid_for_one_step_around_its_own(steps: int, accepted: bool) -> None:
    now = datetime.fromtimestamp(1234567890 + 30 * steps, UTC)

    found = step_of_code(SECRET, "005924", now=now)

    assert found == (1234567890 // 30 if accepted else None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00592",
        "0059240",
        "OO5924",
        "０05924",
        "٠٠٥٩٢٤",
        "００５９２４",
        "0059²4",
        "005 924",
        "-05924",
    ],
)
def test_only_six_digits_of_ascii_are_a_code(text: str) -> None:
    """Measured: PyOTP accepts full-width digits."""
    now = datetime.fromtimestamp(1234567890, UTC)

    assert not has_form_of_code(text)
    assert step_of_code(SECRET, text, now=now) is None


def test_secrets_are_random_and_have_160_bits() -> None:
    secrets = {new_secret() for _ in range(50)}

    assert len(secrets) == 50
    assert {len(base64.b32decode(secret)) for secret in secrets} == {20}


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ("7t2k-9mzq-4c8w-x1bn", "7t2k9mzq4c8wx1bn"),
        (" 7T2K 9MZQ 4C8W XLBN ", "7t2k9mzq4c8wx1bn"),
        ("7t2k9mzq4c8wxibn", "7t2k9mzq4c8wx1bn"),
        ("O000-0000-0000-000o", "0000000000000000"),
        ("7t2k-9mzq-4c8w-x1b", None),
        ("7t2k-9mzq-4c8w-x1bnn", None),
        ("7t2k-9mzq-4c8w-x1bu", None),
        ("7t2k_9mzq_4c8w_x1bn", None),
        ("", None),
        ("７t2k-9mzq-4c8w-x1bn", None),
    ],
)
def test_recovery_codes_are_read_as_people_type_them(typed: str, plain: str | None) -> None:
    assert plain_code(typed) == plain
