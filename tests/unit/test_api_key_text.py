"""The text of API keys: its form, its checksum, and the networks that a key names."""

import re
import string
import zlib
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.gunicorn import REPOSITORY
from userapi.errors import Invalid
from userapi.machines.key_text import generate_key, key_text, looks_like_key, parse_key
from userapi.machines.models import OwnerType
from userapi.machines.networks import is_allowed, parse_networks
from userapi.permissions import PermissionSet

KEY_ID = UUID("019a2f6e-3c1d-7b52-9d3e-5f0a4c7b8e21")
VECTOR = "uaks_031SDlhm3cXd0fqoDweMV7003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf2ZGeM9"


def test_the_text_of_a_key_is_that_of_the_published_vector() -> None:
    text = key_text("uak", OwnerType.SERVICE, KEY_ID, bytes(range(32)))

    assert text == VECTOR
    parsed = parse_key(VECTOR)
    assert parsed is not None
    assert (parsed.owner_type, parsed.key_id) == (OwnerType.SERVICE, KEY_ID)


def test_a_key_is_parsed_once() -> None:
    """The parts are found by the digest of the text; requests with a key parsed it each time."""
    parsed = parse_key(VECTOR)

    assert parsed is not None
    assert parse_key(VECTOR) is parsed


@given(st.integers(0, len(VECTOR) - 1), st.sampled_from("0aZz9_-"))
def test_a_key_with_one_other_character_is_no_key(position: int, character: str) -> None:
    other = VECTOR[:position] + character + VECTOR[position + 1 :]

    assert (parse_key(other) is not None) == (other == VECTOR)


@pytest.mark.parametrize("prefix", ["uak", "ab", "a123456789"])
@pytest.mark.parametrize("owner_type", list(OwnerType))
def test_generated_keys_have_the_form_and_differ(prefix: str, owner_type: OwnerType) -> None:
    first, second = (generate_key(prefix, owner_type, KEY_ID) for _ in range(2))

    assert first.text != second.text
    parsed = parse_key(first.text)
    assert parsed is not None and parsed.digest == first.digest
    assert parsed.owner_type is owner_type
    assert first.hint == first.text[-4:]
    assert not looks_like_key(first.text + "0")


@pytest.mark.parametrize(
    "text", ["", "uaks_", VECTOR * 2, VECTOR.replace("uaks", "UAKS"), "ü" * 76]
)
def test_other_texts_are_no_keys(text: str) -> None:
    assert not looks_like_key(text)
    assert parse_key(text) is None


@pytest.mark.parametrize("prefix", ["uak", "ab", "a123456789"])
def test_the_pattern_for_scanners_finds_keys_and_nothing_else(prefix: str) -> None:
    """docs/consuming.md: a key that it did not find would stay in a public repository."""
    guide = (REPOSITORY / "docs" / "consuming.md").read_text("utf-8")
    (pattern,) = re.findall(r"`(\\b\[a-z\]\S+)`", guide)
    keys = [generate_key(prefix, owner_type, KEY_ID).text for owner_type in OwnerType]
    file = "\n".join(
        [f'API_KEY="{keys[0]}"', f"curl -H 'Authorization: Bearer {keys[1]}' https://x.example"]
    )

    assert re.findall(pattern, file) == keys
    assert [text for text in keys if parse_key(text) is None] == []
    assert not re.search(pattern, f"sha256:{'ab' * 32} _{keys[0]} {keys[0]}9 {keys[0][:-1]}")


@pytest.mark.parametrize(
    ("key_id", "secret", "is_key"),
    [
        (2**128 - 1, 2**256 - 1, True),
        (2**128, 0, False),
        (62**22 - 1, 0, False),
        (0, 2**256, False),
        (0, 62**43 - 1, False),
    ],
)
def test_an_id_has_at_most_128_bits_and_a_secret_256(
    key_id: int, secret: int, *, is_key: bool
) -> None:
    """Base 62 can express more: one key would have several texts."""
    covered = f"uaks_{_base62(key_id, 22)}{_base62(secret, 43)}"
    text = covered + _base62(zlib.crc32(covered.encode()), 6)

    assert looks_like_key(text)
    assert (parse_key(text) is not None) is is_key


def _base62(number: int, length: int) -> str:
    alphabet = string.digits + string.ascii_uppercase + string.ascii_lowercase
    digits = ""
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits = alphabet[digit] + digits
    return digits


@pytest.mark.parametrize(
    "network",
    ["10.0.0.1/8", "example.com", "", "192.0.2.0/255.255.255.0", "192.0.2.0/33", "fe80::1%eth0"],
)
def test_texts_that_name_no_network_are_rejected(network: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_networks([network])

    assert [error.code for error in refused.value.errors] == ["invalid_network"]


@pytest.mark.parametrize("count", [0, 21])
def test_a_key_has_1_to_20_networks(count: int) -> None:
    with pytest.raises(Invalid):
        parse_networks([f"192.0.2.{n}" for n in range(count)])


@pytest.mark.parametrize(
    ("address", "networks", "allowed"),
    [
        ("192.0.2.7", None, True),
        ("192.0.2.7", ["192.0.2.0/24"], True),
        ("192.0.3.7", ["192.0.2.0/24"], False),
        ("192.0.2.7", ["::ffff:192.0.2.0/120"], True),
        ("2001:db8::7", ["192.0.2.0/24", "2001:db8::/32"], True),
        ("2001:db9::7", ["2001:db8::/32"], False),
        (None, ["0.0.0.0/0"], False),
    ],
)
def test_addresses_are_judged_by_the_networks(
    address: str | None, networks: list[str] | None, allowed: bool
) -> None:
    parsed = None if networks is None else parse_networks(networks)

    assert is_allowed(address, parsed) is allowed


@pytest.mark.parametrize(
    ("left", "right", "both"),
    [
        (["users:*"], ["users:read", "media:*"], ["users:read"]),
        (["*"], ["users:*", "media:upload"], ["media:upload", "users:*"]),
        (["users:read"], [], []),
        (["users:*"], ["*"], ["users:*"]),
        (["users:read"], ["users:update"], []),
    ],
)
def test_an_intersection_has_what_both_sets_imply(
    left: list[str], right: list[str], both: list[str]
) -> None:
    expected = PermissionSet(both)

    assert PermissionSet(left) & PermissionSet(right) == expected
    assert PermissionSet(right) & PermissionSet(left) == expected
