"""The keys that sign access tokens."""

from dataclasses import dataclass
from datetime import timedelta

from userapi.authentication.key_folder import KeyFolder
from userapi.authentication.keys import KeyRing
from userapi.clock import Clock
from userapi.settings import Settings


@dataclass(frozen=True, kw_only=True)
class KeyServices:
    """The services about keys that sign access tokens."""

    key_folder: KeyFolder
    keys: KeyRing


def build_keys(settings: Settings, clock: Clock) -> KeyServices:
    """Build the services about keys. Raises SettingsError for unusable keys."""
    return KeyServices(
        key_folder=build_key_folder(settings, clock), keys=build_key_ring(settings, clock)
    )


def build_key_folder(settings: Settings, clock: Clock) -> KeyFolder:
    """Return the folder with the keys that sign access tokens."""
    return KeyFolder(
        settings.keys_folder,
        algorithm=settings.jwt_algorithm,
        token_lifetime=timedelta(minutes=settings.jwt_access_token_expire_minutes),
        clock=clock,
        signs=settings.jwt_private_key_file is None,
    )


def build_key_ring(settings: Settings, clock: Clock) -> KeyRing:
    """Return the keys of this process. Raises SettingsError for unusable keys."""
    return KeyRing(
        algorithm=settings.jwt_algorithm,
        secret=settings.jwt_secret_key,
        file=settings.jwt_private_key_file,
        folder=build_key_folder(settings, clock),
        generate_missing=settings.creates_signing_keys,
    )
