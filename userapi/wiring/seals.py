"""The seals of the audit log and their keys."""

from dataclasses import dataclass

from userapi.audit.seal_keys import SealKeys, seal_keys
from userapi.audit.seals import AuditSeals
from userapi.wiring.foundation import Foundation


@dataclass(frozen=True, kw_only=True)
class SealServices:
    """The services that seal the audit log."""

    audit_seal_keys: SealKeys
    audit_seals: AuditSeals


def build_seals(foundation: Foundation) -> SealServices:
    """Build the services that seal the audit log."""
    settings = foundation.settings
    keys = seal_keys(
        settings.audit_seal_key,
        previous=settings.audit_seal_key_previous,
        encryption_keys=(settings.encryption_key, *settings.encryption_key_previous),
        secret_key=settings.secret_key,
    )
    return SealServices(
        audit_seal_keys=keys,
        audit_seals=AuditSeals(clock=foundation.clock, keys=keys, trail=foundation.audit),
    )
