"""What every use case that sets a password needs."""

from dataclasses import dataclass

from userapi.passwords.hashing import PasswordHasher
from userapi.passwords.policy import PasswordPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordTools:
    """The hasher and the policy, which use cases need together."""

    hasher: PasswordHasher
    policy: PasswordPolicy
