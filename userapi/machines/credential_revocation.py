"""Revocation of a credential with the credential itself (RFC 7009 §2), also of a leaked key."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy.orm import Session

from userapi.accounts.models import User
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.authentication.log_out import LogOut
from userapi.authentication.refusals import TokenRefused
from userapi.authentication.token_claims import AccessClaims
from userapi.authentication.token_status import TokenStatus
from userapi.authentication.tokens import LEEWAY_SECONDS
from userapi.characters import without_blanks_around
from userapi.infrastructure.database import dialect_of, table_of, transaction, upsert
from userapi.machines.client_tokens import acting_as
from userapi.machines.key_authentication import KeyAuthentication
from userapi.machines.key_owners import KeyOwners, LockedOwner
from userapi.machines.key_revocation import KeyRevocation
from userapi.machines.key_text import looks_like_key
from userapi.machines.models import (
    ApiKey,
    ClientToken,
    OwnerType,
    RevocationReason,
    ServiceAccount,
)
from userapi.machines.status import KeyReference, LiveKey, OwnerNotActive, PersonalKeyDisabled
from userapi.recorder import Recorder

_tokens = table_of(ClientToken)


class CredentialRevocation:
    """Ends the session of a user's token, a client token, or an API key."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        log_out: LogOut,
        token_status: TokenStatus,
        keys: KeyAuthentication,
        owners: KeyOwners,
        revocation: KeyRevocation,
    ) -> None:
        self._recorder = recorder
        self._log_out = log_out
        self._token_status = token_status
        self._keys = keys
        self._owners = owners
        self._revocation = revocation

    def revoke(self, text: str, *, actor: Actor) -> None:
        """End the session or the key of a credential, from any network. Ignore any other text.

        Who finds a key pastes it, often with blanks around it.
        """
        text = without_blanks_around(text)
        if looks_like_key(text):
            self._burn(text, actor)
            return
        try:
            claims = self._token_status.verify_either(text)
        except TokenRefused:
            return
        if isinstance(claims, AccessClaims) and claims.client is not None:
            self._end_token(claims, actor)
        else:
            self._log_out.end(claims, actor=actor)

    def _burn(self, text: str, actor: Actor) -> None:
        """Revoke a key, also one of a suspended owner, and while personal keys are disabled."""
        try:
            reference = self._keys.reference(text)
            self._keys.require_live(reference)
        except (OwnerNotActive, PersonalKeyDisabled):
            pass
        except TokenRefused:
            return
        with transaction() as session:
            owner = self._lock_owner(session, reference)
            key = session.get(ApiKey, reference.key_id, with_for_update=True)
            if owner is None or key is None or key.revoked_at is not None:
                return
            actor = replace(actor, key_id=key.id)
            self._revocation.end(session, [key], owner, actor=actor, reason=RevocationReason.LEAKED)

    def _lock_owner(self, session: Session, reference: KeyReference) -> LockedOwner | None:
        key = session.get(ApiKey, reference.key_id)
        if key is None:
            return None
        if reference.owner_type is OwnerType.USER:
            user = session.get(User, key.user_id, with_for_update=True)
            return None if user is None else self._owners.of_user(session, user)
        account = session.get(ServiceAccount, key.service_account_id, with_for_update=True)
        return None if account is None else self._owners.of_account(session, account)

    def _end_token(self, claims: AccessClaims, actor: Actor) -> None:
        """Revoke one client token. Its key, and the other tokens of the key, remain valid."""
        try:
            live = self._keys.require_live(self._keys.reference_of(claims))
        except TokenRefused:
            return
        with transaction() as session:
            account = session.get(ServiceAccount, live.owner_id, with_for_update=True)
            if account is None:
                return
            now = self._recorder.now()
            session.execute(
                upsert(
                    dialect_of(session),
                    _tokens,
                    {
                        "jti": UUID(claims.jti),
                        "key_id": live.key_id,
                        "revoked_at": now,
                        "expires_at": _end_of(claims),
                    },
                    changes={"revoked_at": now},
                )
            )
            self._owners.invalidate_tokens(self._owners.of_account(session, account))
            self._record(live, claims, actor)

    def _record(self, live: LiveKey, claims: AccessClaims, actor: Actor) -> None:
        self._recorder.audit.record(
            AuditAction.AUTH_TOKEN_REVOKED,
            actor=acting_as(live, actor),
            target=("service_account", live.owner_id),
            details={"jti": claims.jti},
        )


def _end_of(claims: AccessClaims) -> datetime:
    """Return the time from which no process accepts the token."""
    leeway = timedelta(seconds=LEEWAY_SECONDS)
    return datetime.fromtimestamp(claims.expires_at, UTC) + leeway
