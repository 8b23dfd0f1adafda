"""Hashing and verification of passwords."""

import base64
import hashlib
import statistics
import time
from collections.abc import Callable
from contextlib import suppress

import argon2
import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from werkzeug.security import generate_password_hash

from userapi.errors import Invalid
from userapi.passwords.hashing import PasswordHasher, Verification
from userapi.passwords.hashing_pool import HashingPool
from userapi.passwords.peppers import PepperMissing, Peppers
from userapi.settings import Settings

PEPPER = "first pepper of thirty-two bytes or more"
NEW_PEPPER = "second pepper of thirty-two bytes or more"
PASSWORD = "correct horse battery staple"
RIGHT = Verification(matches=True, needs_rehash=False)
RIGHT_BUT_OLD = Verification(matches=True, needs_rehash=True)
WRONG = Verification(matches=False, needs_rehash=False)
POOL = HashingPool(queue_limit=64)
DJANGO_DIGEST = base64.b64encode(
    hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b"yQ7kD2", 1000)
).decode()


def _hasher(
    pepper: str = PEPPER, *, former: tuple[str, ...] = (), rounds: int = 4
) -> PasswordHasher:
    return PasswordHasher(peppers=Peppers(pepper, former), rounds=rounds, pool=POOL)


HASHER = _hasher()
STORED = HASHER.hash(PASSWORD)


def test_the_right_password_matches_and_a_wrong_one_does_not() -> None:
    assert HASHER.verify(PASSWORD, STORED) == RIGHT
    assert HASHER.verify(PASSWORD + " ", STORED) == WRONG
    assert HASHER.verify("", STORED) == WRONG


def test_a_stored_hash_names_scheme_pepper_and_cost_and_has_a_salt() -> None:
    scheme, pepper_id, bcrypt_kind, cost = STORED.split("$")[1:5]

    assert (scheme, bcrypt_kind, cost) == ("aima1", "2b", "04")
    assert len(pepper_id) == 8
    assert HASHER.hash(PASSWORD) != STORED


def test_the_cost_is_at_least_12_unless_chosen_otherwise() -> None:
    assert Settings().password_hash_rounds >= 12


def test_passwords_that_share_72_bytes_are_different() -> None:
    stored = HASHER.hash("a" * 72 + "one")

    assert HASHER.verify("a" * 72 + "one", stored) == RIGHT
    assert HASHER.verify("a" * 72 + "two", stored) == WRONG


def test_two_ways_to_type_the_same_text_are_one_password() -> None:
    stored = HASHER.hash("Köln ﬁnden")

    assert HASHER.verify("Ko\u0308ln finden", stored) == RIGHT


def test_128_decomposed_characters_are_accepted() -> None:
    stored = HASHER.hash("\u1f87" * 128)

    assert HASHER.verify("\u03b1\u0314\u0342\u0345" * 128, stored) == RIGHT


def test_a_former_pepper_verifies_and_needs_a_rehash() -> None:
    hasher = _hasher(NEW_PEPPER, former=(PEPPER,))

    assert hasher.verify(PASSWORD, STORED) == RIGHT_BUT_OLD
    assert hasher.verify("wrong", STORED) == WRONG
    assert hasher.verify(PASSWORD, hasher.hash(PASSWORD)) == RIGHT


def test_an_unknown_pepper_is_not_a_wrong_password_and_is_logged() -> None:
    with capture_logs() as lines, pytest.raises(PepperMissing):
        _hasher(NEW_PEPPER).verify(PASSWORD, STORED)

    assert [(line["event"], line["pepper_id"]) for line in lines] == [
        ("password.pepper_unknown", STORED.split("$")[2])
    ]


def test_another_pepper_under_a_known_name_does_not_match() -> None:
    other = _hasher(NEW_PEPPER)
    renamed = STORED.replace(STORED.split("$")[2], other.hash(PASSWORD).split("$")[2])

    assert other.verify(PASSWORD, renamed) == WRONG


@pytest.mark.parametrize("rounds", [5, 6])
def test_another_cost_needs_a_rehash(rounds: int) -> None:
    assert _hasher(rounds=rounds).verify(PASSWORD, STORED) == RIGHT_BUT_OLD
    assert HASHER.verify(PASSWORD, _hasher(rounds=rounds).hash(PASSWORD)) == RIGHT_BUT_OLD


@pytest.mark.parametrize(
    "foreign",
    [
        bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode(),
        argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD),
        generate_password_hash(PASSWORD, method="scrypt:1024:8:1"),
        "pbkdf2_sha256$1000$yQ7kD2$" + DJANGO_DIGEST,
    ],
    ids=["bcrypt", "argon2id", "werkzeug", "django"],
)
def test_an_imported_hash_needs_a_rehash(foreign: str) -> None:
    assert HASHER.verify(PASSWORD, foreign) == RIGHT_BUT_OLD
    assert HASHER.verify("wrong", foreign) == WRONG


@pytest.mark.parametrize(
    "stored",
    [
        "$2b$16$" + "." * 53,
        "$argon2id$v=19$m=1048576,t=20,p=16$c2FsdHNhbHQ$" + "A" * 22,
        f"pbkdf2_sha256$5000000$salt${'A' * 43}=",
        "scrypt:1048576:8:1$salt$" + "0" * 128,
    ],
)
def test_a_stored_hash_over_the_budget_does_not_match_and_is_not_computed(
    stored: str,
) -> None:
    """With such a hash of an earlier release a wrong log-in took 39 s and 1.1 GB."""
    begun = time.process_time()
    with capture_logs() as lines:
        found = HASHER.verify(PASSWORD, stored)

    assert found == WRONG
    assert time.process_time() - begun < 0.5
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("password.hash_too_costly", "error")
    ]


def test_an_unknown_user_has_no_password() -> None:
    assert HASHER.verify(PASSWORD, None) == WRONG
    assert HASHER.verify("dummy", None) == WRONG


DAMAGES: dict[str, Callable[[str], str]] = {
    "empty": lambda _: "",
    "scheme only": lambda _: "$aima1$",
    "unknown scheme": lambda stored: stored.replace("aima1", "aima2"),
    "cut": lambda stored: stored[:-1],
    "longer": lambda stored: stored + "a",
    "line end": lambda stored: stored + "\n",
    "absurd cost": lambda stored: stored.replace("$04$", "$31$"),
    "no cost": lambda stored: stored.replace("$04$", "$00$"),
    "other bcrypt": lambda stored: stored.replace("$2b$", "$2a$"),
    "not ascii": lambda stored: stored[:-1] + "ä",
    "nul": lambda stored: stored.replace("$04$", "$04$\0"),
    "surrogate": lambda _: "\ud800",
    "plain": lambda _: PASSWORD,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_hash_never_matches_and_is_logged(damage: Callable[[str], str]) -> None:
    with capture_logs() as lines:
        assert HASHER.verify(PASSWORD, damage(STORED)) == WRONG

    assert [line["event"] for line in lines] == ["password.hash_unusable"]


@given(st.text(), st.integers(0, len(STORED)), st.integers(0, 5), st.text(max_size=5))
def test_no_stored_text_raises_except_one_with_another_pepper(
    anything: str, start: int, length: int, other: str
) -> None:
    end = start + length
    damaged = STORED[:start] + other + STORED[end:]

    assert HASHER.verify("wrong", anything) == WRONG
    assert HASHER.verify("wrong", "$aima1$" + anything) == WRONG
    try:
        assert HASHER.verify("wrong", damaged) == WRONG
    except PepperMissing:
        # Only the name of the pepper was damaged, so that it names another one.
        assert damaged[7:15] != STORED[7:15]


@given(st.text(st.characters(), max_size=600))
def test_no_typed_text_raises(typed: str) -> None:
    assert HASHER.verify(typed, STORED).matches is (typed == PASSWORD)
    assert HASHER.verify(typed, None) == WRONG


@pytest.mark.parametrize("typed", ["\ud800", "a\udfffb", "a\0b", "a" * 100_000])
def test_an_invalid_password_does_not_match_and_is_not_hashed(typed: str) -> None:
    foreign = bcrypt.hashpw(b"a", bcrypt.gensalt(4)).decode()

    assert HASHER.verify(typed, STORED) == WRONG
    assert HASHER.verify(typed, foreign) == WRONG
    assert HASHER.verify(typed, None) == WRONG
    with pytest.raises(Invalid):
        HASHER.hash(typed)


def test_a_long_run_of_combining_marks_is_rejected_fast() -> None:
    """Normalising 32 000 of them took a second, during which no other request was served."""
    typed = "a" + "\u0315" * 16_000 + "\u0300" * 16_000

    begun = time.perf_counter()
    assert HASHER.verify(typed, STORED) == WRONG

    assert time.perf_counter() - begun < 0.3


CHEAPER = _hasher(rounds=5).hash(PASSWORD)
CHEAPER_FOREIGN = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)).decode()


@pytest.mark.slow  # A comparison of times: another process on the same core would decide it.
@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("wrong", None),
        ("wrong", "damaged"),
        ("wrong", _hasher(NEW_PEPPER, rounds=8).hash(PASSWORD)),
        ("wrong", CHEAPER),
        ("wrong", CHEAPER_FOREIGN),
        ("\ud800", STORED),
        ("a\0b", None),
    ],
    ids=["nobody", "damaged", "unknown pepper", "cheaper", "foreign", "surrogate", "nul"],
)
def test_every_mismatch_takes_the_time_of_a_wrong_password(typed: str, stored: str | None) -> None:
    hasher = _hasher(rounds=8)
    present = hasher.hash(PASSWORD)

    def seconds(check: Callable[[], object]) -> float:
        begun = time.perf_counter()
        with suppress(PepperMissing):
            check()
        return time.perf_counter() - begun

    wrong: list[float] = []
    other: list[float] = []
    for _ in range(15):
        wrong.append(seconds(lambda: hasher.verify("wrong", present)))
        other.append(seconds(lambda: hasher.verify(typed, stored)))

    # A no without the hash would be a hundred times quicker.
    assert 0.6 < statistics.median(other) / statistics.median(wrong) < 1.6
