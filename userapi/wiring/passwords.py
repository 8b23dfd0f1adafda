"""Passwords: how they are checked, hashed and reset, and the lockout after failures."""

from dataclasses import dataclass

from userapi.lockout.service import Lockout
from userapi.passwords.hashing import PasswordHasher
from userapi.passwords.hashing_pool import HashingPool
from userapi.passwords.one_time_tokens import OneTimeTokens
from userapi.passwords.peppers import Peppers
from userapi.passwords.policy import PasswordPolicy, PasswordRequirements
from userapi.passwords.tools import PasswordTools
from userapi.settings import Settings
from userapi.wiring.foundation import Foundation


@dataclass(frozen=True, kw_only=True)
class PasswordServices:
    """The services about passwords."""

    hasher: PasswordHasher
    hashing_pool: HashingPool
    lockout: Lockout
    one_time_tokens: OneTimeTokens
    password_tools: PasswordTools
    peppers: Peppers
    policy: PasswordPolicy


def build_passwords(foundation: Foundation) -> PasswordServices:
    """Build the services about passwords."""
    settings, metrics = foundation.settings, foundation.metrics
    peppers = Peppers(settings.password_pepper, settings.password_pepper_previous)
    hashing_pool = HashingPool(
        queue_limit=settings.password_hash_queue,
        observe=metrics.hash_seconds.observe,
        observe_wait=metrics.hash_wait_seconds.observe,
        track=metrics.hash_queue.track_inprogress,
    )
    hasher = PasswordHasher(
        peppers=peppers, rounds=settings.password_hash_rounds, pool=hashing_pool
    )
    policy = PasswordPolicy(_requirements(settings), service_name=settings.app_name)
    return PasswordServices(
        hasher=hasher,
        hashing_pool=hashing_pool,
        lockout=Lockout(
            foundation.clock,
            threshold=settings.lockout_threshold,
            base_seconds=settings.lockout_base_seconds,
            max_seconds=settings.lockout_max_seconds,
            secret_key=settings.secret_key,
        ),
        one_time_tokens=OneTimeTokens(clock=foundation.clock, mails=foundation.mails),
        password_tools=PasswordTools(hasher=hasher, policy=policy),
        peppers=peppers,
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
