"""Values encrypted at rest: which keys decrypt them, and how a missing key differs from damage."""

import pytest

from userapi.infrastructure.encryption import (
    EncryptionKeyMissing,
    EncryptionKeys,
    SealedValueDamaged,
    key_id,
)

OLD = "uQ2nVb7sKe9xRw4yTm1zHc6pLd3gJf8a"
NEW = "aF8jGd3lPc6hZm1tYw4rXe9kSb7vNq2u"


def test_a_sealed_value_opens_and_shows_nothing_of_its_content() -> None:
    keys = EncryptionKeys(NEW)

    first = keys.seal(b"a secret text", "totp", b"user-1")
    second = keys.seal(b"a secret text", "totp", b"user-1")

    assert keys.open_sealed(first, "totp", b"user-1") == b"a secret text"
    assert first != second
    assert b"secret" not in first
    assert keys.open_sealed(keys.seal(b"", "totp"), "totp") == b""


@pytest.mark.parametrize(("purpose", "associated"), [("import", b"user-1"), ("totp", b"user-2")])
def test_a_value_opens_only_for_its_purpose_and_its_associated_data(
    purpose: str, associated: bytes
) -> None:
    keys = EncryptionKeys(NEW)
    sealed = keys.seal(b"a secret text", "totp", b"user-1")

    with pytest.raises(SealedValueDamaged):
        keys.open_sealed(sealed, purpose, associated)


def test_every_changed_byte_is_noticed() -> None:
    keys = EncryptionKeys(NEW)
    sealed = keys.seal(b"a secret text", "totp")

    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises((SealedValueDamaged, EncryptionKeyMissing)):
            keys.open_sealed(bytes(changed), "totp")


@pytest.mark.parametrize("length", [0, 1, 8, 9, 15, 21, 36])
def test_a_truncated_value_is_damaged(length: int) -> None:
    keys = EncryptionKeys(NEW)
    sealed = keys.seal(b"a secret text", "totp")

    with pytest.raises(SealedValueDamaged):
        keys.open_sealed(sealed[:length], "totp")


def test_a_previous_key_opens_and_the_current_one_seals() -> None:
    before, after = EncryptionKeys(OLD), EncryptionKeys(NEW, previous=[OLD])

    sealed = before.seal(b"a secret text", "totp")

    assert after.open_sealed(sealed, "totp") == b"a secret text"
    assert not after.is_sealed_by_current(sealed)
    assert after.is_sealed_by_current(after.seal(b"a secret text", "totp"))
    assert after.known_ids == {key_id(OLD), key_id(NEW)}
    assert after.current_id == key_id(NEW)


def test_a_missing_key_is_named_by_its_fingerprint() -> None:
    sealed = EncryptionKeys(OLD).seal(b"a secret text", "totp")

    with pytest.raises(EncryptionKeyMissing) as missing:
        EncryptionKeys(NEW).open_sealed(sealed, "totp")

    assert missing.value.key_id == key_id(OLD)
    assert OLD not in str(missing.value)
