"""Hashes of other systems, created by the libraries of these systems."""

import base64
import hashlib

import argon2
import bcrypt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.security import generate_password_hash

from userapi.passwords.legacy_hashes import (
    UnusableHash,
    check_legacy_hash,
    read_legacy_hash,
)

PASSWORD = "Grüße aus Köln"
DECOMPOSED = "Gru\u0308ße aus Ko\u0308ln"
ARGON2_TAIL = "$c29tZXNhbHQxMjM0NTY$" + base64.b64encode(b"\x01" * 32).decode().rstrip("=")
BCRYPT_TAIL = "." * 53
DJANGO_TAIL = "$salt$" + base64.b64encode(b"\x01" * 32).decode()
SCRYPT_TAIL = "$salt$" + "0f" * 64


def _bcrypt(prefix: bytes = b"2b") -> str:
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4))
    return hashed.replace(b"2b", prefix, 1).decode()


def _argon2id() -> str:
    return argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)


def _django() -> str:
    digest = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b"yQ7kD2", 1000)
    return f"pbkdf2_sha256$1000$yQ7kD2${base64.b64encode(digest).decode()}"


def _werkzeug() -> str:
    return generate_password_hash(PASSWORD, method="scrypt:1024:8:1")


FORMATS = {
    "bcrypt-2a": _bcrypt(b"2a"),
    "bcrypt-2b": _bcrypt(b"2b"),
    "bcrypt-2y": _bcrypt(b"2y"),
    "argon2id": _argon2id(),
    "argon2id of Django": f"argon2{_argon2id()}",
    "django": _django(),
    "werkzeug": _werkzeug(),
}


@st.composite
def _damaged(draw: st.DrawFn) -> str:
    text = FORMATS[draw(st.sampled_from(list(FORMATS)))]
    start = draw(st.integers(0, len(text)))
    end = start + draw(st.integers(0, 3))
    return text[:start] + draw(st.text(max_size=3)) + text[end:]


def _code(text: str) -> str:
    with pytest.raises(UnusableHash) as refused:
        check_legacy_hash(text)
    [error] = refused.value.errors
    assert error.field == "password_hash"
    return error.code


@pytest.mark.parametrize("text", FORMATS.values(), ids=FORMATS.keys())
def test_a_hash_of_another_system_matches_its_password_as_typed(text: str) -> None:
    check_legacy_hash(text)
    foreign = read_legacy_hash(text)

    assert foreign.matches(PASSWORD.encode())
    assert not foreign.matches(b"another")
    assert not foreign.matches(b"")
    assert not foreign.matches(DECOMPOSED.encode())


def test_a_published_digest_of_pbkdf2_matches() -> None:
    """PBKDF2-HMAC-SHA-256 of RFC 7914 §11, its first 32 bytes, written as Django does."""
    digest = bytes.fromhex("55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc")
    text = f"pbkdf2_sha256$1$salt${base64.b64encode(digest).decode()}"

    assert read_legacy_hash(text).matches(b"passwd")


def test_a_published_digest_of_scrypt_matches() -> None:
    """The second vector of RFC 7914 §12, written as werkzeug does."""
    text = (
        "scrypt:1024:8:16$NaCl$fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"
        "2eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640"
    )

    assert read_legacy_hash(text).matches(b"password")


def test_werkzeug_hashes_of_the_default_cost_are_accepted() -> None:
    assert read_legacy_hash(generate_password_hash("secret")).matches(b"secret")


def test_legacy_bcrypt_uses_72_bytes_as_in_the_other_system() -> None:
    text = bcrypt.hashpw(b"a" * 72, bcrypt.gensalt(4)).decode()

    assert read_legacy_hash(text).matches(b"a" * 72 + b"more")
    assert not read_legacy_hash(text).matches(b"a" * 71)


@pytest.mark.parametrize(
    "text",
    [
        "$2b$15$" + BCRYPT_TAIL,
        "$2b$16$" + BCRYPT_TAIL,
        "$2b$31$" + BCRYPT_TAIL,
        "$argon2id$v=19$m=65537,t=1,p=1" + ARGON2_TAIL,
        "argon2$argon2id$v=19$m=102400,t=2,p=8" + ARGON2_TAIL,
        "$argon2id$v=19$m=4294967295,t=1,p=1" + ARGON2_TAIL,
        "$argon2id$v=19$m=65536,t=13,p=1" + ARGON2_TAIL,
        "$argon2id$v=19$m=64,t=4200,p=1" + ARGON2_TAIL,
        "$argon2id$v=19$m=128,t=400,p=16" + ARGON2_TAIL,
        "$argon2id$v=19$m=1024,t=1,p=17" + ARGON2_TAIL,
        "pbkdf2_sha256$3500001" + DJANGO_TAIL,
        "scrypt:131072:8:1" + SCRYPT_TAIL,
        "scrypt:65536:8:5" + SCRYPT_TAIL,
        "scrypt:32768:8:9" + SCRYPT_TAIL,
        "scrypt:2:8:1000000" + SCRYPT_TAIL,
        "scrypt:2:8:6000" + SCRYPT_TAIL,
    ],
)
def test_a_hash_over_the_budget_is_rejected(text: str) -> None:
    assert _code(text) == "hash_too_costly"


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        ("$2b$14$" + BCRYPT_TAIL, "$2b$15$" + BCRYPT_TAIL),
        (
            "$argon2id$v=19$m=65408,t=10,p=1" + ARGON2_TAIL,
            "$argon2id$v=19$m=65408,t=11,p=1" + ARGON2_TAIL,
        ),
        (
            "$argon2id$v=19$m=65536,t=10,p=1" + ARGON2_TAIL,
            "$argon2id$v=19$m=65537,t=10,p=1" + ARGON2_TAIL,
        ),
        (
            "$argon2id$v=19$m=8,t=5000,p=1" + ARGON2_TAIL,
            "$argon2id$v=19$m=8,t=5001,p=1" + ARGON2_TAIL,
        ),
        (
            "$argon2id$v=19$m=128,t=312,p=16" + ARGON2_TAIL,
            "$argon2id$v=19$m=128,t=313,p=16" + ARGON2_TAIL,
        ),
        ("pbkdf2_sha256$2200000" + DJANGO_TAIL, "pbkdf2_sha256$2200001" + DJANGO_TAIL),
        ("scrypt:65536:8:3" + SCRYPT_TAIL, "scrypt:65536:8:4" + SCRYPT_TAIL),
        ("scrypt:65536:8:1" + SCRYPT_TAIL, "scrypt:131072:8:1" + SCRYPT_TAIL),
        ("scrypt:2:8:640" + SCRYPT_TAIL, "scrypt:2:8:656" + SCRYPT_TAIL),
    ],
)
def test_each_limit_of_the_budget_is_exact(within: str, beyond: str) -> None:
    """`make bench-hashes` compares the time at these limits with bcrypt at cost 14."""
    check_legacy_hash(within)

    assert _code(beyond) == "hash_too_costly"


@pytest.mark.parametrize(
    "text",
    [
        # Defaults of Django 6, werkzeug 3, argon2-cffi 25 and RFC 9106 §4, the second choice.
        "pbkdf2_sha256$1200000" + DJANGO_TAIL,
        "scrypt:32768:8:1" + SCRYPT_TAIL,
        "$argon2id$v=19$m=65536,t=3,p=4" + ARGON2_TAIL,
    ],
)
def test_the_default_costs_of_other_systems_are_within_the_budget(text: str) -> None:
    check_legacy_hash(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "password",
        "5f4dcc3b5aa765d61d8327deb882cf99",
        "$1$salt$qJH7.N4xYta3aEG/dfqo/0",
        "$aima1$01234567$2b$04$" + BCRYPT_TAIL,
        "$2x$04$" + BCRYPT_TAIL,
        "$2b$03$" + BCRYPT_TAIL,
        "$2b$04$" + BCRYPT_TAIL[:-1],
        "$2b$04$" + BCRYPT_TAIL + ".",
        "$2b$04$" + BCRYPT_TAIL + "\n",
        "$2b$04$" + "." * 21 + "/" + "." * 31,
        "$2b$04$" + "." * 52 + "/",
        "$2b$٠٤$" + BCRYPT_TAIL,
        "$argon2i$v=19$m=64,t=1,p=1" + ARGON2_TAIL,
        "$argon2id$v=16$m=64,t=1,p=1" + ARGON2_TAIL,
        "$argon2id$v=19$m=064,t=1,p=1" + ARGON2_TAIL,
        "$argon2id$v=19$m=64,t=0,p=1" + ARGON2_TAIL,
        "$argon2id$v=19$m=8,t=1,p=2" + ARGON2_TAIL,
        "$argon2id$v=19$m=64,t=1,p=1" + ARGON2_TAIL[:-2],
        "$argon2id$v=19$m=64,t=1,p=1" + ARGON2_TAIL[:-1] + "F",
        "$argon2id$v=19$m=64,t=1,p=1$c2FsdA" + ARGON2_TAIL[20:],
        "pbkdf2_sha1$1000" + DJANGO_TAIL,
        "pbkdf2_sha256$0" + DJANGO_TAIL,
        "pbkdf2_sha256$-1" + DJANGO_TAIL,
        "pbkdf2_sha256$1000$" + DJANGO_TAIL.removeprefix("$salt"),
        "pbkdf2_sha256$1000" + DJANGO_TAIL[:-1],
        "scrypt:1000:8:1" + SCRYPT_TAIL,
        "scrypt:1:8:1" + SCRYPT_TAIL,
        "scrypt:65536:1:1" + SCRYPT_TAIL,
        "scrypt:1024:8:1" + SCRYPT_TAIL[:-2],
        "scrypt:1024:8:1" + SCRYPT_TAIL.upper(),
    ],
)
def test_a_text_that_is_not_a_complete_hash_is_rejected(text: str) -> None:
    assert _code(text) == "unsupported_hash"


@given(st.one_of(st.text(), _damaged()))
@example("$2b$04$" + BCRYPT_TAIL)
def test_a_damaged_hash_is_rejected_or_can_be_checked(text: str) -> None:
    try:
        foreign = read_legacy_hash(text)
    except UnusableHash:
        return

    assert foreign.matches(b"never the password") is False
