"""How easily a password is guessed, estimated by zxcvbn in bounded time."""

import math
from collections.abc import Iterable

from zxcvbn import matching
from zxcvbn_rs_py import zxcvbn

# What 72 characters do not tell, more do not either.
ESTIMATED_LENGTH = 72
MIN_ESTIMATED_LENGTH = 16
# It tries each reading of the characters that may stand for letters (4 for a) on every part of the
# password: 0.6 s for 72 of them. This much work takes at most 25 ms.
ESTIMATED_WORK = 60_000


def is_common(folded: str) -> bool:
    """Return whether a case-folded password is among the most used ones."""
    return folded in matching.RANKED_DICTIONARIES["passwords"]


def estimate(password: str, *, about: Iterable[str]) -> tuple[int, tuple[str, ...]]:
    """Return zxcvbn's score and what it suggests; `about` are words that guess the user."""
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
    """Return the text without lone surrogates, which have no UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _estimated_part(password: str) -> str:
    """Return the longest beginning whose estimate takes bounded time."""
    for length in range(ESTIMATED_LENGTH, MIN_ESTIMATED_LENGTH, -4):
        part = password[:length]
        if _readings(part) * len(part) ** 2 <= ESTIMATED_WORK:
            return part
    return password[:MIN_ESTIMATED_LENGTH]


def _readings(password: str) -> int:
    """Return in about how many ways zxcvbn reads digits and signs as letters."""
    characters = set(password)
    return math.prod(
        max(1, len(characters.intersection(signs))) for signs in matching.L33T_TABLE.values()
    )
