"""Registration: an account gets another passkey (WebAuthn Level 3 §7.1)."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from userapi.accounts.errors import UserNotFound
from userapi.accounts.views import find_user
from userapi.factors.challenges import Ceremony, Challenges, Purpose
from userapi.factors.credentials import (
    MalformedCredential,
    NewPasskey,
    RegistrationAnswer,
    read_registration,
)
from userapi.factors.errors import TooManyFactors
from userapi.factors.listing import FactorView, passkey_view
from userapi.factors.models import MAX_NAME_LENGTH, Passkey
from userapi.factors.passkey_errors import (
    PasskeyFault,
    PasskeyRejected,
    PasskeysDisabled,
    PasskeyTaken,
    ResponseRejected,
)
from userapi.factors.passkeys import (
    MAX_PASSKEYS,
    PasskeyOptions,
    known_credentials,
    load_library,
)
from userapi.factors.relying_party import RelyingParty
from userapi.factors.user_handles import user_handle
from userapi.infrastructure.database import (
    dialect_of,
    insert_for,
    new_id,
    reading,
    table_of,
)
from userapi.recorder import Recorder
from userapi.sessions.devices import device_label

log = structlog.get_logger(__name__)

_table = table_of(Passkey)


class PasskeyRegistration:
    """Issues the options of new passkeys, and stores them in the transaction of a use case."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        challenges: Challenges,
        relying_party: RelyingParty,
        enabled: bool,
    ) -> None:
        self._recorder = recorder
        self._challenges = challenges
        self._party = relying_party
        self._enabled = enabled

    def require_available(self) -> None:
        """Raise PasskeysDisabled if no passkeys can be added."""
        if not self._enabled:
            raise PasskeysDisabled()

    def options(self, user_id: UUID, *, session_id: UUID) -> PasskeyOptions:
        """Return the options of a new passkey, for one session of its user.

        Raises TooManyFactors. Only the user handle is stored, the first time.
        """
        # Imported here because it loads the library.
        from userapi.factors.webauthn_options import creation_options

        with reading() as connection:
            user = find_user(connection, user_id, self._recorder.now())
            known = known_credentials(connection, user_id)
        if user is None:
            raise UserNotFound()
        if len(known) >= MAX_PASSKEYS:
            raise TooManyFactors()
        names = [name for name in (user.first_name, user.last_name) if name]
        return PasskeyOptions(
            public_key=creation_options(
                self._party,
                challenge=self._challenges.issue(_ceremony(session_id)),
                user_handle=user_handle(user_id),
                username=user.username,
                display_name=" ".join(names) or user.username,
                excluded=known,
            )
        )

    def read(self, credential: Mapping[str, Any]) -> RegistrationAnswer | None:
        """Return a decoded response; None if it cannot be read. Call it before the transaction."""
        load_library()
        try:
            return read_registration(credential)
        except MalformedCredential:
            return None

    def add(
        self,
        session: Session,
        answer: RegistrationAnswer | None,
        *,
        user_id: UUID,
        session_id: UUID,
        name: str | None,
        user_agent: str | None,
    ) -> FactorView | PasskeyRejected | PasskeyTaken | TooManyFactors:
        """Verify and store the passkey of a locked user, or return why it is rejected.

        Only responses to options of this session are accepted. The caller commits in both cases,
        because a rejected response can use up its challenge.
        """
        count = select(func.count()).select_from(_table).where(_table.c.user_id == user_id)
        if session.execute(count).scalar_one() >= MAX_PASSKEYS:
            return TooManyFactors()
        verified = self._verify(session, answer, session_id)
        if answer is None or isinstance(verified, PasskeyFault):
            log.info("passkey.rejected", user_id=str(user_id), reason=verified)
            return PasskeyRejected()
        row = {
            "id": new_id(),
            "user_id": user_id,
            "name": name or f"Passkey ({device_label(user_agent)})"[:MAX_NAME_LENGTH],
            "credential_id": answer.credential_id,
            "public_key": verified.public_key,
            "sign_count": verified.state.sign_count,
            "backup_eligible": verified.state.backup_eligible,
            "backed_up": verified.state.backed_up,
            "transports": verified.transports,
            "rp_id": self._party.id,
            "created_at": self._recorder.now(),
        }
        inserted = session.execute(
            insert_for(dialect_of(session), _table)
            .values(row)
            .on_conflict_do_nothing(index_elements=[_table.c.credential_id])
            .returning(*_table.columns)
        ).one_or_none()
        return PasskeyTaken() if inserted is None else passkey_view(inserted)

    def _verify(
        self, session: Session, answer: RegistrationAnswer | None, session_id: UUID
    ) -> NewPasskey | PasskeyFault:
        # Imported here because it loads the library.
        from userapi.factors.webauthn_verification import verify_registration

        if answer is None:
            return PasskeyFault.MALFORMED
        challenge = self._challenges.read(answer.client_data.challenge)
        if (
            challenge is None
            or challenge.ceremony != _ceremony(session_id)
            or not self._challenges.is_fresh(challenge)
        ):
            return PasskeyFault.CHALLENGE
        try:
            verified = verify_registration(answer, party=self._party)
        except ResponseRejected as exc:
            return exc.fault
        if not self._challenges.use(session, challenge):
            return PasskeyFault.CHALLENGE
        if answer.client_data.is_embedded:
            return PasskeyFault.CROSS_ORIGIN
        return verified


def _ceremony(session_id: UUID) -> Ceremony:
    return Ceremony(purpose=Purpose.REGISTRATION, bound_to=session_id)
