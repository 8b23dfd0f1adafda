"""Secrets of this installation: the keys of encrypted values, the peppers of password hashes."""

from dataclasses import dataclass

from userapi.accounts.imports.batch_rotation import BatchRotation
from userapi.accounts.imports.sealed_batches import SealedBatches
from userapi.factors.secret_rotation import SecretRotation
from userapi.factors.totp_secrets import TotpSecrets
from userapi.infrastructure.encryption import EncryptionKeys
from userapi.passwords.peppers import Peppers
from userapi.settings import Settings


@dataclass(frozen=True, kw_only=True)
class SecretServices:
    """The services that hold secrets of the settings."""

    encryption: EncryptionKeys
    peppers: Peppers
    totp_secrets: TotpSecrets
    totp_secret_rotation: SecretRotation
    import_batch_rotation: BatchRotation


def build_secrets(settings: Settings) -> SecretServices:
    """Build the services that hold secrets of the settings."""
    encryption = EncryptionKeys(settings.encryption_key, previous=settings.encryption_key_previous)
    totp_secrets = TotpSecrets(encryption)
    return SecretServices(
        encryption=encryption,
        peppers=Peppers(settings.password_pepper, settings.password_pepper_previous),
        totp_secrets=totp_secrets,
        totp_secret_rotation=SecretRotation(totp_secrets),
        import_batch_rotation=BatchRotation(SealedBatches(encryption)),
    )
