"""Confirming an authenticator app: a code of it makes it a second factor."""

from dataclasses import dataclass
from uuid import UUID

from userapi.actor import Actor
from userapi.authentication.owners import lock_active_user, view_of
from userapi.authentication.session_renewal import SessionRenewal
from userapi.authentication.token_pairs import TokenPair, TokenPairs
from userapi.authentication.token_status import SessionReference
from userapi.factors.app_setup import AppSetup
from userapi.factors.listing import FactorView
from userapi.factors.service import Factors
from userapi.infrastructure.database import transaction
from userapi.recorder import Recorder
from userapi.sessions.authentication_level import OTP


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedFactor:
    """A factor that was added, and the new tokens of the session that has added it.

    With the first factor come recovery codes.
    """

    factor: FactorView
    recovery_codes: tuple[str, ...] | None
    pair: TokenPair


class AppConfirmation:
    """Confirms authenticator apps of the signed-in user."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        setup: AppSetup,
        factors: Factors,
        renewal: SessionRenewal,
        token_pairs: TokenPairs,
    ) -> None:
        self._recorder = recorder
        self._setup = setup
        self._factors = factors
        self._renewal = renewal
        self._token_pairs = token_pairs

    def confirm(
        self, own: SessionReference, factor_id: UUID, code: str, *, actor: Actor
    ) -> AddedFactor:
        """Confirm an app with a code that it shows, and renew the session.

        All earlier tokens of the session are invalid. Raises FactorNotFound, InvalidCode, Busy, and
        TokenRevoked if the session has ended or was renewed.
        """
        app = self._setup.prove(own.user_id, factor_id, code)
        codes = self._factors.prepare_codes(own.user_id)
        with transaction() as session:
            user = lock_active_user(session, own.user_id)
            current = self._renewal.lock(session, own)
            factor = self._setup.confirm(session, user.id, app)
            texts = self._factors.added(
                session, user, factor, codes=codes, actor=actor, keep=current.id
            )
            self._renewal.renew(current, proved=OTP)
            session.flush()
            view = view_of(session, user.id, self._recorder.now())
        return AddedFactor(
            factor=factor, recovery_codes=texts, pair=self._token_pairs.issue(current, view)
        )
