"""The password policy and its messages."""

import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zxcvbn import matching, zxcvbn

from userapi.errors import FieldError, Invalid
from userapi.passwords.policy import PasswordPolicy, PasswordRequirements, refusal

DEFAULTS = PasswordRequirements(min_length=8, min_score=2)
POLICY = PasswordPolicy(DEFAULTS, service_name="User Management Service")
GOOD = "violet anchor seventeen"


def _policy(**requirements: Any) -> PasswordPolicy:
    return PasswordPolicy(replace(DEFAULTS, **requirements), service_name="User Management Service")


def _codes(
    password: str,
    *,
    policy: PasswordPolicy = POLICY,
    username: str | None = None,
    email: str | None = None,
) -> set[str]:
    return {
        str(violation.code) for violation in policy.check(password, username=username, email=email)
    }


@pytest.mark.parametrize(
    "password",
    [GOOD, "Tr0ub4dor&3 x", "köln-zebra-fjord", "パスワードは秘密です鍵", "x9#Lm2$vQ7!p"],
)
def test_a_password_that_is_hard_to_guess_is_accepted(password: str) -> None:
    assert _codes(password, username="alice", email="alice@example.com") == set()


def test_a_password_has_at_least_the_set_number_of_characters() -> None:
    policy = _policy(min_length=12)

    assert _codes("kV7#qz2!mP4", policy=policy) == {"password_too_short"}
    assert _codes("kV7#qz2!mP4x", policy=policy) == set()


def test_a_password_has_at_most_128_characters_after_normalising() -> None:
    words = "violet anchor seventeen marble kettle "

    assert _codes((words * 4)[:128]) == set()
    assert _codes((words * 4)[:129]) == {"password_too_long"}
    # One ligature is three letters after NFKC.
    assert "password_too_long" in _codes(words + "ﬃ" * 31)
    assert "password_too_long" not in _codes(words + "ﬃ" * 30)
    # Four code points are one letter.
    assert "password_too_long" not in _codes("\u03b1\u0314\u0342\u0345" * 128)


@pytest.mark.parametrize("length", [129, 513, 70_000])
@pytest.mark.parametrize("character", ["a", "\u0300", "e\u0301", "\ufdfa", "\U0001f600"])
def test_a_text_that_is_far_too_long_is_too_long(length: int, character: str) -> None:
    assert "password_too_long" in _codes(character * length)


@pytest.mark.parametrize(
    "password", ["password", "PassWord", "ｐａｓｓｗｏｒｄ", "12345678", "iloveyou"]
)
def test_a_common_password_is_rejected_in_any_case_and_width(password: str) -> None:
    assert _codes(password) == {"password_common", "password_too_weak"}


def test_a_password_must_not_contain_the_username() -> None:
    assert _codes("violet ALICE seventeen", username="alice") == {"password_contains_username"}
    assert _codes("violet bob seventeen", username="Bob") == {"password_contains_username"}
    assert _codes("violet bo seventeen", username="bo") == set()
    assert _codes("violet seventeen", username="") == set()


def test_a_password_must_not_contain_the_email_address() -> None:
    code = {"password_contains_email"}

    assert _codes("7 m.curie! seventeen", email="M.Curie@example.com") == code
    assert _codes("xx jo@example.com seventeen", email="jo@example.com") == code
    assert _codes("violet jo seventeen", email="jo@example.com") == set()
    assert _codes("violet example seventeen", email="jo@example.com") == set()


@pytest.mark.parametrize(
    "password",
    ["usermanagementservice 7", "User Management Service!", "my-user.management_service"],
)
def test_a_password_must_not_contain_the_name_of_the_service(password: str) -> None:
    assert "password_contains_service_name" in _codes(password)


def test_a_password_can_contain_words_of_the_service_name() -> None:
    assert _codes("violet service anchor user") == set()


def test_a_very_short_service_name_is_not_forbidden() -> None:
    assert (
        _codes("violet happy anchor", policy=PasswordPolicy(DEFAULTS, service_name="App")) == set()
    )


def test_a_weak_password_is_rejected() -> None:
    for password in ("p4ssw0rd!", "        ", "aaaaaaaaaaaa", "abcdefgh", "qwertzuiop", "19870412"):
        assert "password_too_weak" in _codes(password), password


def test_the_minimum_score_is_configurable() -> None:
    strict = _policy(min_score=4)
    lax = _policy(min_score=0)

    assert _codes("violetkey", policy=strict) == {"password_too_weak"}
    assert _codes("aaaaaaaaaaaa", policy=lax) == set()


@pytest.mark.parametrize(
    "password", ["violet\nanchor seventeen", "violet\0anchor", "violet\ud800anchor"]
)
def test_control_characters_are_rejected(password: str) -> None:
    assert "password_not_text" in _codes(password)


@pytest.mark.parametrize(
    ("requirement", "code", "missing", "present"),
    [
        ("uppercase", "password_missing_uppercase", GOOD, "Ä" + GOOD),
        ("lowercase", "password_missing_lowercase", GOOD.upper(), GOOD),
        ("number", "password_missing_number", GOOD, GOOD + "7"),
        ("special", "password_missing_special", "violetanchorseventeen", GOOD),
    ],
)
def test_rules_of_composition_apply_when_enabled(
    requirement: str, code: str, missing: str, present: str
) -> None:
    policy = _policy(**{requirement: True})

    assert _codes(missing) == set()
    assert _codes(missing, policy=policy) == {code}
    assert _codes(present, policy=policy) == set()


def test_all_violated_rules_are_reported_together() -> None:
    policy = _policy(uppercase=True, number=True, special=True)

    assert _codes("monkey", policy=policy, username="monkey", email="monkey@example.com") == {
        "password_too_short",
        "password_common",
        "password_contains_username",
        "password_contains_email",
        "password_too_weak",
        "password_missing_uppercase",
        "password_missing_number",
        "password_missing_special",
    }


def test_an_empty_password_is_too_short_and_too_weak() -> None:
    assert _codes("") == {"password_too_short", "password_too_weak"}


def test_require_raises_every_violation_for_the_given_field() -> None:
    POLICY.require(GOOD)
    with pytest.raises(Invalid) as refused:
        POLICY.require("monkey", field="new_password")

    assert [(error.field, error.code) for error in refused.value.errors] == [
        ("new_password", "password_too_short"),
        ("new_password", "password_common"),
        ("new_password", "password_too_weak"),
    ]


def test_violations_become_errors_of_a_field() -> None:
    invalid = refusal(POLICY.check("kV7#qz2"), field="password")

    assert invalid.errors == (
        FieldError("password", "Must be at least 8 characters.", "password_too_short"),
    )


def test_strength_has_reasons_and_suggestions() -> None:
    weak = POLICY.strength("p4ssw0rd!")
    strong = POLICY.strength(GOOD)

    assert (weak.acceptable, weak.score) == (False, 1)
    assert [str(issue.code) for issue in weak.issues] == ["password_too_weak"]
    assert "This is similar to a commonly used password." in weak.suggestions
    assert (strong.acceptable, strong.score, strong.issues) == (True, 4, ())


def test_words_about_the_user_lower_the_score() -> None:
    about = POLICY.strength("wolfeschlegelstein", username="wolfeschlegelstein")

    assert about.score < POLICY.strength("wolfeschlegelstein").score


def test_parallel_estimates_do_not_mix_up_their_users() -> None:
    """zxcvbn for Python stores the user's words in a dictionary that all threads share."""
    begin = threading.Barrier(8)

    def scores(number: int) -> set[int]:
        begin.wait(10)
        name = f"wolfeschlegelstein{number}"
        return {POLICY.strength(name, username=name).score for _ in range(25)}

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(scores, range(8)))
    finally:
        sys.setswitchinterval(interval)

    assert found == [{0}] * 8


WORST_CASES: dict[str, Callable[[random.Random], str]] = {
    "one letter": lambda _: "a" * 128,
    "signs for letters": lambda _: "4@8({[<369 1!|70$5+%2" * 6,
    "signs at random": lambda dice: "".join(dice.choices("4@8({[<369 1!|70$5+%2", k=128)),
    "pairs": lambda _: "aA" * 64,
    "repeats of repeats": lambda _: "".join("a" * count + "b" for count in range(1, 15)),
    "years": lambda _: "19" * 64,
    "printable": lambda dice: "".join(chr(dice.randrange(32, 127)) for _ in range(128)),
    "unicode": lambda dice: "".join(chr(dice.randrange(0x4E00, 0x9FFF)) for _ in range(128)),
    "marks": lambda _: "a" + "\u0315" * 32_000 + "\u0300" * 32_000,
}


@pytest.mark.parametrize("make", WORST_CASES.values(), ids=WORST_CASES.keys())
def test_no_password_takes_long_to_check(make: Callable[[random.Random], str]) -> None:
    """Unbounded, the signs took 1.8 seconds and the marks 4."""
    password = make(random.Random(7))

    def seconds() -> float:
        begun = time.thread_time()
        POLICY.check(password, username="alice", email="alice@example.com")
        return time.thread_time() - begun

    assert min(seconds() for _ in range(5)) < 0.05


def test_the_estimate_agrees_with_the_reference() -> None:
    """Of 7 034 passwords 99.4 % have the score of zxcvbn; all others but 7 have a lower one."""
    dice = random.Random(4)
    known = list(matching.RANKED_DICTIONARIES["passwords"])
    words = list(matching.RANKED_DICTIONARIES["english_wikipedia"])
    passwords = [
        make()
        for _ in range(60)
        for make in (
            lambda: dice.choice(known),
            lambda: f"{dice.choice(known).capitalize()}{dice.randrange(100)}",
            lambda: " ".join(dice.choices(words, k=3)),
            lambda: f"{dice.choice(words)}-{dice.choice(words)}",
            lambda: dice.choice(words).translate(str.maketrans("aeios", "43105")),
            lambda: "".join(dice.choices("abcdefghkmnpqrstABC0123456789!$%&", k=10)),
        )
    ]

    scores = [(POLICY.strength(text).score, int(zxcvbn(text)["score"])) for text in passwords]

    assert all(abs(ours - theirs) <= 1 for ours, theirs in scores)
    assert sum(ours == theirs for ours, theirs in scores) >= 0.97 * len(scores)


@settings(deadline=None)
@given(st.text(st.characters(), max_size=140), st.text(max_size=70), st.text(max_size=70))
def test_any_text_can_be_checked(password: str, username: str, email: str) -> None:
    strength = POLICY.strength(password, username=username, email=email)

    assert 0 <= strength.score <= 4
    assert strength.acceptable is not bool(strength.issues)
