"""Password policy: minimum length, no common passwords, no personal words, minimum strength.

Follows NIST SP 800-63B-4 §3.1.1.2: length and a blocklist. Rules of composition apply only if the
operator enables them. All violated rules are reported together.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from userapi.errors import FieldError, Invalid
from userapi.passwords.hashing import MAX_TYPED_CHARACTERS

MAX_LENGTH = 128
MIN_NAME_LENGTH = 3
MIN_SERVICE_NAME_LENGTH = 4


class PasswordRule(StrEnum):
    """The rules; their values are the codes that clients see."""

    COMMON = "password_common"
    CONTAINS_EMAIL = "password_contains_email"
    CONTAINS_SERVICE_NAME = "password_contains_service_name"
    CONTAINS_USERNAME = "password_contains_username"
    MISSING_LOWERCASE = "password_missing_lowercase"
    MISSING_NUMBER = "password_missing_number"
    MISSING_SPECIAL = "password_missing_special"
    MISSING_UPPERCASE = "password_missing_uppercase"
    NOT_TEXT = "password_not_text"
    TOO_LONG = "password_too_long"
    TOO_SHORT = "password_too_short"
    TOO_WEAK = "password_too_weak"


@dataclass(frozen=True, slots=True)
class PolicyViolation:
    """A rule that a password violates."""

    code: PasswordRule
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordStrength:
    """The strength of a password: `score` from 0 (trivial to guess) to 4."""

    acceptable: bool
    score: int
    issues: tuple[PolicyViolation, ...]
    suggestions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordRequirements:
    """The operator's requirements for passwords; `min_score` is a score of zxcvbn."""

    min_length: int
    min_score: int
    uppercase: bool = False
    lowercase: bool = False
    number: bool = False
    special: bool = False


class PasswordPolicy:
    """Checks passwords. Stores and logs nothing."""

    def __init__(self, requirements: PasswordRequirements, *, service_name: str) -> None:
        self._requirements = requirements
        self._service_name = _letters_and_digits(_folded(service_name))
        self._service_words = (self._service_name, *_folded(service_name).split())

    def require(
        self,
        password: str,
        *,
        username: str | None = None,
        email: str | None = None,
        field: str = "password",
    ) -> None:
        """Raise Invalid with every rule that the password violates."""
        violations = self.check(password, username=username, email=email)
        if violations:
            raise refusal(violations, field=field)

    def check(
        self, password: str, *, username: str | None = None, email: str | None = None
    ) -> list[PolicyViolation]:
        """Return every rule that the password violates."""
        return list(self.strength(password, username=username, email=email).issues)

    def strength(
        self, password: str, *, username: str | None = None, email: str | None = None
    ) -> PasswordStrength:
        """Return the strength of a password for this user."""
        # One character more than the limit is enough to detect that it is too long.
        normal = unicodedata.normalize("NFKC", password[: MAX_TYPED_CHARACTERS + 1])
        username, email = _folded(username or ""), _folded(email or "")
        local_part = email.partition("@")[0]
        # Imported on first use, because most commands check no password.
        from userapi.passwords.estimation import estimate

        score, suggestions = estimate(
            normal, about=(username, email, local_part, *self._service_words)
        )
        issues = (
            *self._length_violations(normal),
            *self._content_violations(normal, username, email),
            *self._score_violations(score),
            *self._composition_violations(normal),
        )
        return PasswordStrength(
            acceptable=not issues, score=score, issues=issues, suggestions=suggestions
        )

    def _length_violations(self, password: str) -> Iterator[PolicyViolation]:
        minimum = self._requirements.min_length
        if len(password) < minimum:
            yield PolicyViolation(PasswordRule.TOO_SHORT, f"Must be at least {minimum} characters.")
        if len(password) > MAX_LENGTH:
            yield PolicyViolation(
                PasswordRule.TOO_LONG, f"Must be at most {MAX_LENGTH} characters."
            )

    def _content_violations(
        self, password: str, username: str, email: str
    ) -> Iterator[PolicyViolation]:
        from userapi.passwords.estimation import is_common

        folded = _folded(password)
        if any(unicodedata.category(character) in {"Cc", "Cs"} for character in password):
            yield PolicyViolation(PasswordRule.NOT_TEXT, "Must not contain control characters.")
        if is_common(folded):
            yield PolicyViolation(
                PasswordRule.COMMON, "This password is too common. Choose another one."
            )
        if len(username) >= MIN_NAME_LENGTH and username in folded:
            yield PolicyViolation(PasswordRule.CONTAINS_USERNAME, "Must not contain the user name.")
        if _contains_address(folded, email):
            yield PolicyViolation(
                PasswordRule.CONTAINS_EMAIL, "Must not contain the e-mail address."
            )
        if len(
            self._service_name
        ) >= MIN_SERVICE_NAME_LENGTH and self._service_name in _letters_and_digits(folded):
            yield PolicyViolation(
                PasswordRule.CONTAINS_SERVICE_NAME, "Must not contain the name of the service."
            )

    def _score_violations(self, score: int) -> Iterator[PolicyViolation]:
        if score < self._requirements.min_score:
            yield PolicyViolation(
                PasswordRule.TOO_WEAK,
                "This password is too easy to guess. Choose a longer or less predictable one.",
            )

    def _composition_violations(self, password: str) -> Iterator[PolicyViolation]:
        required = self._requirements
        if required.uppercase and not any(c.isupper() for c in password):
            yield PolicyViolation(
                PasswordRule.MISSING_UPPERCASE, "Must contain an upper-case letter."
            )
        if required.lowercase and not any(c.islower() for c in password):
            yield PolicyViolation(
                PasswordRule.MISSING_LOWERCASE, "Must contain a lower-case letter."
            )
        if required.number and not any(c.isdigit() for c in password):
            yield PolicyViolation(PasswordRule.MISSING_NUMBER, "Must contain a digit.")
        if required.special and all(c.isalnum() for c in password):
            yield PolicyViolation(
                PasswordRule.MISSING_SPECIAL,
                "Must contain a character that is not a letter or digit.",
            )


def refusal(violations: Iterable[PolicyViolation], *, field: str = "password") -> Invalid:
    """Return the error for violations of one field."""
    return Invalid([FieldError(field, each.message, each.code.value) for each in violations])


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _letters_and_digits(text: str) -> str:
    return "".join(character for character in text if character.isalnum())


def _contains_address(password: str, email: str) -> bool:
    if not email:
        return False
    local_part = email.partition("@")[0]
    return email in password or (len(local_part) >= MIN_NAME_LENGTH and local_part in password)
