"""Password strength, estimated by zxcvbn in bounded time."""

import math
from collections.abc import Iterable

from zxcvbn import matching
from zxcvbn_rs_py import zxcvbn

# Longer passwords are estimated by their beginning.
MAX_ESTIMATED_LENGTH = 72
MIN_ESTIMATED_LENGTH = 16
# zxcvbn tries every substitution of digits and signs for letters (4 for a) on every part of the
# password: 0.6 s for 72 of them. This much work takes at most 25 ms.
MAX_ESTIMATED_WORK = 60_000


def is_common(folded: str) -> bool:
    """Return whether a case-folded password is in the list of common passwords."""
    return folded in matching.RANKED_DICTIONARIES["passwords"]


def estimate(password: str, *, about: Iterable[str]) -> tuple[int, tuple[str, ...]]:
    """Return zxcvbn's score and suggestions; `about` are words that belong to the user."""
    if not password:
        return 0, ()
    words = [_encodable(text) for text in about if text]
    found = zxcvbn(_encodable(_estimated_part(password)), words)
    feedback = found.feedback
    if feedback is None:
        return int(found.score), ()
    warning = () if feedback.warning is None else (str(feedback.warning),)
    return int(found.score), (*warning, *map(str, feedback.suggestions))


def _encodable(text: str) -> str:
    """Return the text without lone surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()


def _estimated_part(password: str) -> str:
    """Return the longest prefix whose estimate takes bounded time."""
    for length in range(MAX_ESTIMATED_LENGTH, MIN_ESTIMATED_LENGTH, -4):
        part = password[:length]
        if _substitutions(part) * len(part) ** 2 <= MAX_ESTIMATED_WORK:
            return part
    return password[:MIN_ESTIMATED_LENGTH]


def _substitutions(password: str) -> int:
    """Return about how many substitutions of digits and signs zxcvbn tries."""
    characters = set(password)
    return math.prod(
        max(1, len(characters.intersection(signs))) for signs in matching.L33T_TABLE.values()
    )
