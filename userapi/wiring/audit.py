"""Reading the audit log."""

from dataclasses import dataclass

from userapi.audit.reading import AuditReader
from userapi.wiring.foundation import Foundation


@dataclass(frozen=True, kw_only=True)
class AuditServices:
    """The services that read the audit log."""

    audit_reader: AuditReader


def build_audit(foundation: Foundation) -> AuditServices:
    """Build the services that read the audit log."""
    return AuditServices(
        audit_reader=AuditReader(trail=foundation.audit, cursor_key=foundation.settings.secret_key)
    )
