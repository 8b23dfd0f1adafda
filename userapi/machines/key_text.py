"""The text of an API key: prefix, kind, id, secret and checksum.

    <prefix><p|s>_<id: 22><secret: 43><CRC-32: 6>

The numbers are in base 62 (0-9, A-Z, a-z; big-endian, padded with zeros). Scanners for leaked
secrets find keys by their form and verify the checksum offline, as with the tokens of GitHub.
"""

import hashlib
import re
import secrets
import zlib
from dataclasses import dataclass
from uuid import UUID

from userapi.infrastructure.bounded_dict import BoundedDict
from userapi.machines.models import OwnerType

MAX_CACHED_KEYS = 4096

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_LENGTH, SECRET_LENGTH, CHECKSUM_LENGTH = 22, 43, 6
SECRET_BYTES = 32
HINT_LENGTH = 4

FORM = re.compile(r"[a-z][a-z0-9]{1,9}([ps])_([0-9A-Za-z]{22})([0-9A-Za-z]{43})([0-9A-Za-z]{6})")
LONGEST = 12 + ID_LENGTH + SECRET_LENGTH + CHECKSUM_LENGTH
_OWNER_OF = {"p": OwnerType.USER, "s": OwnerType.SERVICE}
_LETTER_OF = {owner: letter for letter, owner in _OWNER_OF.items()}
_VALUE_OF = {digit: value for value, digit in enumerate(DIGITS)}
# By their digests, which are of no use to an attacker who reads the memory.
_parsed: BoundedDict[str, "ParsedKey"] = BoundedDict(MAX_CACHED_KEYS)


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """The parts of the text of a key. Only the database can verify the secret."""

    owner_type: OwnerType
    key_id: UUID
    digest: str
    """SHA-256 of the whole text, hexadecimal."""


@dataclass(frozen=True, slots=True)
class NewKeyText:
    """The text of a new key, which is shown once, and what is stored of it."""

    text: str
    digest: str

    @property
    def hint(self) -> str:
        """Return the last characters, by which people recognize a key."""
        return self.text[-HINT_LENGTH:]


def generate_key(prefix: str, owner_type: OwnerType, key_id: UUID) -> NewKeyText:
    """Return the text of a new key with a random secret of 256 bits."""
    text = key_text(prefix, owner_type, key_id, secrets.token_bytes(SECRET_BYTES))
    return NewKeyText(text, digest_of(text))


def key_text(prefix: str, owner_type: OwnerType, key_id: UUID, secret: bytes) -> str:
    """Return the text of a key with this id and secret."""
    covered = (
        f"{prefix}{_LETTER_OF[owner_type]}_"
        f"{_base62(key_id.int, ID_LENGTH)}{_base62(int.from_bytes(secret), SECRET_LENGTH)}"
    )
    return covered + _checksum(covered)


def looks_like_key(text: str) -> bool:
    """Return whether a text has the form of a key; its checksum may be wrong."""
    return len(text) <= LONGEST and FORM.fullmatch(text) is not None


def parse_key(text: str) -> ParsedKey | None:
    """Return the parts of the text of a key; None if the form or the checksum is wrong."""
    if len(text) > LONGEST or not text.isascii():
        return None
    digest = digest_of(text)
    parsed = _parsed.get(digest)
    if parsed is None and (parsed := _parse(text, digest)) is not None:
        _parsed[digest] = parsed
    return parsed


def _parse(text: str, digest: str) -> ParsedKey | None:
    found = FORM.fullmatch(text)
    if found is None or _checksum(text[:-CHECKSUM_LENGTH]) != found[4]:
        return None
    if found[2] > MAX_ID or found[3] > MAX_SECRET:
        return None
    return ParsedKey(_OWNER_OF[found[1]], UUID(int=_number(found[2])), digest)


def digest_of(text: str) -> str:
    """Return the SHA-256 of a key. It has 256 random bits, so no slow hash is needed."""
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _checksum(covered: str) -> str:
    return _base62(zlib.crc32(covered.encode("ascii")), CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    while number:
        number, remainder = divmod(number, 62)
        digits.append(DIGITS[remainder])
    return "".join(reversed(digits)).rjust(length, "0")


def _number(text: str) -> int:
    number = 0
    for digit in text:
        number = number * 62 + _VALUE_OF[digit]
    return number


# The digits are in the order of ASCII, so texts of one length compare as their numbers do.
MAX_ID = _base62((1 << 128) - 1, ID_LENGTH)
MAX_SECRET = _base62((1 << 8 * SECRET_BYTES) - 1, SECRET_LENGTH)
