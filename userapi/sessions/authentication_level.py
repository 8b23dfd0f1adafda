"""How a session has authenticated its user: which methods, at which level, and when.

The level describes what took part in the session (NIST SP 800-63B-4) and is never lowered. The
methods are those of RFC 8176; `recovery`, a recovery code, is our own. They are a set, without an
order.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Level(StrEnum):
    """The authentication context class of a session (claim `acr`)."""

    AAL1 = "aal1"
    AAL2 = "aal2"


MULTIPLE_FACTORS = "mfa"

# The authentication methods (claim `amr`) of each way to prove an identity.
PWD = ("pwd",)
OTP = ("otp", MULTIPLE_FACTORS)
RECOVERY = ("recovery", MULTIPLE_FACTORS)
PASSKEY = ("pop", "user", MULTIPLE_FACTORS)


@dataclass(frozen=True, slots=True)
class Authentication:
    """How a session has authenticated its user, and when it last did."""

    acr: str
    amr: tuple[str, ...]
    authenticated_at: datetime

    @property
    def columns(self) -> dict[str, object]:
        """Return the values of the columns that store it."""
        return {
            "acr": self.acr,
            "amr": " ".join(self.amr),
            "authenticated_at": self.authenticated_at,
        }


def authenticated_by(methods: Iterable[str], *, at: datetime) -> Authentication:
    """Return the authentication by these methods, at the level that they reach."""
    amr = union(methods)
    level = Level.AAL2 if MULTIPLE_FACTORS in amr else Level.AAL1
    return Authentication(level, amr, at)


def stored_authentication(acr: str, amr: str, at: datetime) -> Authentication:
    """Return the authentication that the columns of a session contain."""
    return Authentication(acr, tuple(amr.split()), at)


def union(*methods: Iterable[str]) -> tuple[str, ...]:
    """Return all methods, each once."""
    return tuple(dict.fromkeys(name for part in methods for name in part))
