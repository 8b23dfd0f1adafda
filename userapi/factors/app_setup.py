"""Setting up an authenticator app: a new secret, which is a factor once a code confirms it.

A user has at most one unconfirmed app. It is in no list, and expires.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from userapi.accounts.service import Accounts
from userapi.accounts.views import users
from userapi.factors.errors import FactorNotFound, InvalidCode, TooManyFactors, TotpDisabled
from userapi.factors.listing import FactorView, app_view
from userapi.factors.models import TotpFactor
from userapi.factors.totp import key_uri, new_secret, qr_code, step_of_code
from userapi.factors.totp_secrets import TotpSecrets
from userapi.infrastructure.database import new_id, reading, table_of, transaction
from userapi.recorder import Recorder

MAX_APPS = 3
DEFAULT_NAME = "Authenticator app"
LIFETIME = timedelta(seconds=600)

_table = table_of(TotpFactor)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApp:
    """The secret for an authenticator app, in the forms that apps accept."""

    id: UUID
    secret: str
    uri: str
    qr_code: str
    expires_in: int


@dataclass(frozen=True, slots=True)
class ProvenApp:
    """An unconfirmed app that has shown the code of this step."""

    id: UUID
    step: int


class AppSetup:
    """Sets up authenticator apps."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        accounts: Accounts,
        secrets: TotpSecrets,
        issuer: str,
        enabled: bool,
    ) -> None:
        self._recorder = recorder
        self._accounts = accounts
        self._secrets = secrets
        self._issuer = issuer
        self._enabled = enabled

    def require_available(self) -> None:
        """Raise TotpDisabled if no apps can be added."""
        if not self._enabled:
            raise TotpDisabled()

    def begin(self, user_id: UUID, *, name: str | None = None) -> NewApp:
        """Return a new secret. It replaces one that is not confirmed yet.

        Raises TotpDisabled, TooManyFactors.
        """
        self.require_available()
        secret, factor_id, now = new_secret(), new_id(), self._recorder.now()
        sealed = self._secrets.seal(secret, user_id=user_id, factor_id=factor_id)
        with transaction() as session:
            user, _ = self._accounts.locked(session, user_id)
            if _count_confirmed(session, user_id) >= MAX_APPS:
                raise TooManyFactors()
            session.execute(
                delete(_table).where(_table.c.user_id == user_id, _table.c.confirmed_at.is_(None))
            )
            session.execute(
                insert(_table),
                {
                    "id": factor_id,
                    "user_id": user_id,
                    "name": name or DEFAULT_NAME,
                    **sealed.columns,
                    "last_step": 0,
                    "created_at": now,
                    "expires_at": now + LIFETIME,
                },
            )
            username = user.username
        return self._shown(factor_id, secret, username=username, expires_in=LIFETIME)

    def find_unconfirmed(self, user_id: UUID, factor_id: UUID) -> NewApp | None:
        """Return the secret of an app that is not confirmed yet; None if there is none.

        Only a fresh session may see it. Raises Unavailable if no key decrypts the secret.
        """
        query = (
            select(_table.c.sealed_secret, _table.c.expires_at, users.c.username)
            .join(users, users.c.id == _table.c.user_id)
            .where(*self._is_pending(user_id, factor_id))
        )
        with reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        secret = self._secrets.open_sealed(row.sealed_secret, user_id=user_id, factor_id=factor_id)
        left = row.expires_at - self._recorder.now()
        return self._shown(factor_id, secret, username=row.username, expires_in=left)

    def prove(self, user_id: UUID, factor_id: UUID, code: str) -> ProvenApp:
        """Compare a code with the secret of an unconfirmed app. A wrong one is not counted.

        Raises FactorNotFound, InvalidCode, and Unavailable if no key decrypts the secret.
        """
        query = select(_table.c.sealed_secret).where(*self._is_pending(user_id, factor_id))
        with reading() as connection:
            sealed: bytes | None = connection.execute(query).scalar_one_or_none()
        if sealed is None:
            raise FactorNotFound()
        secret = self._secrets.open_sealed(sealed, user_id=user_id, factor_id=factor_id)
        step = step_of_code(secret, "".join(code.split()), now=self._recorder.now())
        if step is None:
            raise InvalidCode()
        return ProvenApp(factor_id, step)

    def confirm(self, session: Session, user_id: UUID, app: ProvenApp) -> FactorView:
        """Make a confirmed app of a locked user a factor, in the open transaction.

        The code that confirmed it cannot be used again. Raises FactorNotFound.
        """
        confirmed = session.execute(
            update(_table)
            .where(*self._is_pending(user_id, app.id))
            .values(confirmed_at=self._recorder.now(), expires_at=None, last_step=app.step)
            .returning(*_table.columns)
        ).one_or_none()
        if confirmed is None:
            raise FactorNotFound()
        return app_view(confirmed)

    def _shown(
        self, factor_id: UUID, secret: str, *, username: str, expires_in: timedelta
    ) -> NewApp:
        uri = key_uri(secret, issuer=self._issuer, username=username)
        return NewApp(
            id=factor_id,
            secret=secret,
            uri=uri,
            qr_code=qr_code(uri),
            expires_in=int(expires_in.total_seconds()),
        )

    def _is_pending(self, user_id: UUID, factor_id: UUID) -> tuple[Any, ...]:
        return (
            _table.c.id == factor_id,
            _table.c.user_id == user_id,
            _table.c.confirmed_at.is_(None),
            _table.c.expires_at > self._recorder.now(),
        )


def _count_confirmed(session: Session, user_id: UUID) -> int:
    query = select(func.count()).where(
        _table.c.user_id == user_id, _table.c.confirmed_at.is_not(None)
    )
    return int(session.execute(query).scalar_one())
