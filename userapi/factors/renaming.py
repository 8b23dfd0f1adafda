"""Renaming a second factor."""

from dataclasses import replace
from uuid import UUID

from sqlalchemy import update

from userapi.accounts.service import Accounts
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.factors.errors import FactorNotFound
from userapi.factors.listing import FactorView, find_factor
from userapi.factors.methods import FactorType
from userapi.factors.models import Passkey, TotpFactor
from userapi.infrastructure.database import table_of, transaction
from userapi.recorder import Recorder

TABLES = {FactorType.PASSKEY: table_of(Passkey), FactorType.TOTP: table_of(TotpFactor)}


class FactorRenaming:
    """Renames factors of the signed-in user."""

    def __init__(self, *, recorder: Recorder, accounts: Accounts) -> None:
        self._recorder = recorder
        self._accounts = accounts

    def rename(self, user_id: UUID, factor_id: UUID, name: str, *, actor: Actor) -> FactorView:
        """Give a factor another name, which need not be unique. Raises FactorNotFound."""
        with transaction() as session:
            self._accounts.locked(session, user_id)
            before = find_factor(session, user_id, factor_id)
            if before is None:
                raise FactorNotFound()
            table = TABLES[before.type]
            session.execute(update(table).where(table.c.id == factor_id).values(name=name))
            self._recorder.audit.record(
                AuditAction.MFA_FACTOR_RENAMED,
                actor=actor,
                target=("user", user_id),
                changes={"name": (before.name, name)},
                details={"factor_id": factor_id, "type": before.type},
            )
        return replace(before, name=name)
