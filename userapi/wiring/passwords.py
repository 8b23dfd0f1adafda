"""Passwords: how they are checked, hashed and reset."""

from dataclasses import dataclass

from userapi.passwords.hashing import PasswordHasher
from userapi.passwords.hashing_pool import HashingPool
from userapi.passwords.one_time_tokens import OneTimeTokens
from userapi.passwords.policy import PasswordPolicy, PasswordRequirements
from userapi.passwords.tools import PasswordTools
from userapi.settings import Settings
from userapi.wiring.foundation import Foundation
from userapi.wiring.metrics import MetricServices
from userapi.wiring.secrets import SecretServices


@dataclass(frozen=True, kw_only=True)
class PasswordServices:
    """The services about passwords."""

    hasher: PasswordHasher
    hashing_pool: HashingPool
    one_time_tokens: OneTimeTokens
    password_tools: PasswordTools
    policy: PasswordPolicy


def build_passwords(
    foundation: Foundation, secrets: SecretServices, measured: MetricServices
) -> PasswordServices:
    """Build the services about passwords."""
    settings, metrics = foundation.settings, measured.metrics
    hashing_pool = HashingPool(
        queue_limit=settings.password_hash_queue,
        observe=metrics.hash_seconds.observe,
        observe_wait=metrics.hash_wait_seconds.observe,
        track=metrics.hash_queue.track_inprogress,
    )
    hasher = PasswordHasher(
        peppers=secrets.peppers, rounds=settings.password_hash_rounds, pool=hashing_pool
    )
    policy = PasswordPolicy(_requirements(settings), service_name=settings.app_name)
    return PasswordServices(
        hasher=hasher,
        hashing_pool=hashing_pool,
        one_time_tokens=OneTimeTokens(clock=foundation.clock, mails=foundation.mails),
        password_tools=PasswordTools(hasher=hasher, policy=policy),
        policy=policy,
    )


def _requirements(settings: Settings) -> PasswordRequirements:
    return PasswordRequirements(
        min_length=settings.password_min_length,
        min_score=settings.password_min_score,
        uppercase=settings.password_require_uppercase,
        lowercase=settings.password_require_lowercase,
        number=settings.password_require_numbers,
        special=settings.password_require_special,
    )
