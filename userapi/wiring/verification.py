"""Verification and pruning of the audit log."""

from dataclasses import dataclass

from userapi.audit.pruning import AuditPruning
from userapi.audit.verification import AuditVerification
from userapi.wiring.foundation import Foundation
from userapi.wiring.seals import SealServices


@dataclass(frozen=True, kw_only=True)
class VerificationServices:
    """The services that check the seals of the audit log."""

    audit_pruning: AuditPruning
    audit_verification: AuditVerification


def build_verification(foundation: Foundation, seals: SealServices) -> VerificationServices:
    """Build the services that check the seals of the audit log."""
    verification = AuditVerification(keys=seals.audit_seal_keys)
    return VerificationServices(
        audit_pruning=AuditPruning(
            clock=foundation.clock,
            trail=foundation.audit,
            seals=seals.audit_seals,
            verification=verification,
        ),
        audit_verification=verification,
    )
