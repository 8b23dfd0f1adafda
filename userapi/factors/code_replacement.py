"""New recovery codes in place of the former ones."""

from uuid import UUID

from sqlalchemy import select

from userapi.accounts.service import Accounts
from userapi.accounts.views import users
from userapi.actor import Actor
from userapi.factors.errors import MfaNotEnabled
from userapi.factors.recovery_codes import RecoveryCodes
from userapi.factors.service import Factors
from userapi.infrastructure.database import reading, transaction
from userapi.mail.models import MailKind


class RecoveryCodeReplacement:
    """Replaces the recovery codes of the signed-in user."""

    def __init__(
        self, *, accounts: Accounts, factors: Factors, recovery_codes: RecoveryCodes
    ) -> None:
        self._accounts = accounts
        self._factors = factors
        self._recovery_codes = recovery_codes

    def replace(self, user_id: UUID, *, actor: Actor) -> tuple[str, ...]:
        """Return ten new codes; all former ones are void. Raises Busy, MfaNotEnabled."""
        with reading() as connection:
            enabled = connection.scalar(select(users.c.mfa_enabled).where(users.c.id == user_id))
        if not enabled:
            raise MfaNotEnabled()
        codes = self._recovery_codes.generate()
        with transaction() as session:
            user, _ = self._accounts.locked(session, user_id)
            if not user.mfa_enabled:
                raise MfaNotEnabled()
            self._factors.store_codes(user, codes, actor=actor)
            self._factors.notify(MailKind.RECOVERY_CODES_CREATED, user, actor=actor)
        return codes.texts
