"""The tools of every use case that sets a password."""

from dataclasses import dataclass

from userapi.passwords.hashing import PasswordHasher
from userapi.passwords.policy import PasswordPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordTools:
    """The hasher and the policy."""

    hasher: PasswordHasher
    policy: PasswordPolicy
