"""The audit log: reading, seals, verification and pruning."""

from dataclasses import dataclass

from userapi.audit.pruning import AuditPruning
from userapi.audit.reading import AuditReader
from userapi.audit.seal_keys import SealKeys, seal_keys
from userapi.audit.seals import AuditSeals
from userapi.audit.verification import AuditVerification
from userapi.wiring.foundation import Foundation


@dataclass(frozen=True, kw_only=True)
class AuditServices:
    """The services about the audit log."""

    audit_pruning: AuditPruning
    audit_reader: AuditReader
    audit_seal_keys: SealKeys
    audit_seals: AuditSeals
    audit_verification: AuditVerification


def build_audit(foundation: Foundation) -> AuditServices:
    """Build the services about the audit log."""
    settings, clock, trail = foundation.settings, foundation.clock, foundation.audit
    keys = seal_keys(
        settings.audit_seal_key,
        previous=settings.audit_seal_key_previous,
        encryption_keys=(settings.encryption_key, *settings.encryption_key_previous),
        secret_key=settings.secret_key,
    )
    seals = AuditSeals(clock=clock, keys=keys, trail=trail)
    verification = AuditVerification(keys=keys)
    return AuditServices(
        audit_pruning=AuditPruning(
            clock=clock, trail=trail, seals=seals, verification=verification
        ),
        audit_reader=AuditReader(trail=trail, cursor_key=settings.secret_key),
        audit_seal_keys=keys,
        audit_seals=seals,
        audit_verification=verification,
    )
