"""User names and e-mail addresses: their syntax, and the form in which they are compared."""

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from userapi.characters import without_blanks_around
from userapi.errors import Invalid, invalid_field

USERNAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,63}", re.ASCII)
RESERVED_USERNAMES = frozenset(
    "abuse admin administrator anonymous api auth bot contact guest help hostmaster info login "
    "logout mail me moderator noreply no-reply nobody null official operator owner postmaster "
    "register root security service staff superadmin superuser support sysadmin system test "
    "undefined user users webmaster www".split()
)

# These domains are not in the public DNS, but private networks use them.
PRIVATE_DOMAINS = ("local", "test")


@dataclass(frozen=True, slots=True)
class EmailAddress:
    """An address as it is shown, and its normalized form, which is unique."""

    shown: str
    normalized: str


@cache
def _email_validator() -> ModuleType:
    """Return the library. It is imported on first use, because most commands parse no address."""
    import email_validator

    for name in PRIVATE_DOMAINS:
        if name in email_validator.SPECIAL_USE_DOMAIN_NAMES:
            email_validator.SPECIAL_USE_DOMAIN_NAMES.remove(name)
    return email_validator


def parse_email(text: str, *, field: str = "email") -> EmailAddress:
    """Return the address. The normalized form is case-folded NFKC with the domain in IDNA.

    Surrounding blanks, which pasted text often has, are removed. Raises Invalid for `field`.
    """
    email_validator = _email_validator()
    try:
        checked = email_validator.validate_email(
            without_blanks_around(text), check_deliverability=False
        )
    except email_validator.EmailNotValidError as exc:
        raise invalid_field(field, str(exc), "invalid_email") from exc
    local = unicodedata.normalize("NFKC", checked.local_part).casefold()
    domain = (checked.ascii_domain or checked.domain).lower()
    return EmailAddress(checked.normalized, f"{local}@{domain}")


def canonical_identifier(text: str) -> str:
    """Return an identifier, as typed at log-in, in the form in which it is compared."""
    text = without_blanks_around(text)
    if "@" in text:
        try:
            return parse_email(text).normalized
        except Invalid:
            pass  # Not an address: no user has it, but its failed log-ins are counted.
    return unicodedata.normalize("NFKC", text).casefold()


def parse_username(text: str, *, reserved_allowed: bool = True) -> str:
    """Return the name in lower case, without surrounding blanks. Raises Invalid."""
    text = without_blanks_around(text)
    if not USERNAME_PATTERN.fullmatch(text):
        raise invalid_field(
            "username",
            "Must be 3 to 64 characters of a-z, 0-9, '.', '_' and '-', and begin with a letter or"
            " digit.",
            "invalid_username",
        )
    name = text.lower()
    if not reserved_allowed and name in RESERVED_USERNAMES:
        raise invalid_field("username", "This name is reserved.", "reserved_username")
    return name
