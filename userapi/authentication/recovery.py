"""Getting back in, and proving addresses: the use cases behind the links in mails."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from userapi.accounts.addresses import canonical_identifier, parse_email
from userapi.accounts.models import User, UserStatus
from userapi.accounts.service import Accounts, UserNotFound
from userapi.accounts.views import is_identified_by, users
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.audit.service import AuditTrail
from userapi.authentication.refusals import TokenRevoked
from userapi.authentication.service import Authentication, as_user
from userapi.errors import invalid_field
from userapi.infrastructure.database import reading, transaction
from userapi.mail.models import MailKind
from userapi.mail.queue import MailQueue
from userapi.passwords.hashing import PasswordHasher
from userapi.passwords.models import TokenPurpose
from userapi.passwords.one_time_tokens import InvalidToken, OneTimeTokens
from userapi.passwords.peppers import PepperMissing
from userapi.passwords.policy import PasswordPolicy
from userapi.roles.service import Roles, role_names_of
from userapi.sessions.service import EndReason, Sessions

SETTING_A_PASSWORD = (TokenPurpose.INVITATION, TokenPurpose.PASSWORD_RESET)
PROVING_AN_ADDRESS = (TokenPurpose.EMAIL_CHANGE, TokenPurpose.EMAIL_VERIFICATION)


class Recovery:
    """Resets, invitations, verification and changes of addresses, and leaving for good."""

    def __init__(
        self,
        *,
        audit: AuditTrail,
        accounts: Accounts,
        authentication: Authentication,
        hasher: PasswordHasher,
        mails: MailQueue,
        one_time_tokens: OneTimeTokens,
        policy: PasswordPolicy,
        roles: Roles,
        sessions: Sessions,
    ) -> None:
        self._audit = audit
        self._accounts = accounts
        self._authentication = authentication
        self._hasher = hasher
        self._mails = mails
        self._one_time_tokens = one_time_tokens
        self._policy = policy
        self._roles = roles
        self._sessions = sessions

    # Passwords

    def request_reset(self, email: str, *, actor: Actor) -> None:
        """Ask for a mail with a link that sets a new password.

        The same is done for every address; only the worker finds out that nothing comes of it.
        """
        user_id, status, invited = self._known(email)
        purpose = TokenPurpose.INVITATION if invited else TokenPurpose.PASSWORD_RESET
        entitled = user_id if status is UserStatus.ACTIVE or invited else None
        with transaction():
            self._audit.record(
                AuditAction.AUTH_PASSWORD_RESET_REQUESTED,
                actor=actor,
                target=("user", user_id) if user_id else None,
            )
            self._one_time_tokens.send(purpose, user_id=entitled, email=email, actor=actor)

    def reset_for(self, user_id: UUID, *, actor: Actor) -> None:
        """Mail somebody a link that sets a new password, and end their sessions.

        Raises UserNotFound, InsufficientRank.
        """
        with transaction() as session:
            user, names = self._accounts.locked(session, user_id)
            self._roles.require_outranks(actor, user_id, names)
            view = self._accounts.view(session, user_id)
            purpose = TokenPurpose.PASSWORD_RESET if user.password_hash else TokenPurpose.INVITATION
            self._audit.record(
                AuditAction.AUTH_PASSWORD_RESET_REQUESTED, actor=actor, target=("user", user_id)
            )
            self._one_time_tokens.send(purpose, user_id=user_id, email=user.email, actor=actor)
            self._sessions.end_all(user=view.facts, actor=actor, reason=EndReason.PASSWORD_RESET)

    def confirm_reset(self, token: str, new_password: str, *, actor: Actor) -> None:
        """Set the password of whoever holds the link; every session ends and locks are cleared.

        A pending invited user becomes active. A weak password leaves the token usable. Raises
        InvalidToken, Invalid.
        """
        user_id = self._one_time_tokens.owner_of(token, *SETTING_A_PASSWORD)
        try:
            known = self._accounts.get(user_id)
        except UserNotFound as exc:
            raise InvalidToken() from exc
        self._policy.require(
            new_password, username=known.username, email=known.email, field="new_password"
        )
        with reading() as connection:
            stored = connection.execute(
                select(users.c.password_hash).where(users.c.id == user_id)
            ).scalar_one_or_none()
        if stored is not None and self._is_unchanged(new_password, stored):
            raise invalid_field(
                "new_password", "Must differ from the current password.", "password_unchanged"
            )
        password_hash = self._hasher.hash(new_password)
        with transaction() as session:
            user = self._locked_for_token(session, user_id)
            used = self._one_time_tokens.redeem(token, *SETTING_A_PASSWORD)
            actor = as_user(actor, user)
            if used.purpose == TokenPurpose.INVITATION:
                # Whoever holds the link has shown that the address is theirs.
                self._accounts.verify_email(session, user, actor=actor)
                if user.status == UserStatus.PENDING:
                    self._accounts.make_active(session, user, actor=actor)
            view = self._authentication.set_password(user, password_hash, actor=actor)
            self._accounts.clear_failed_logins(user)
            self._sessions.end_all(user=view.facts, actor=actor, reason=EndReason.PASSWORD_RESET)
            self._audit.record(
                AuditAction.AUTH_PASSWORD_RESET, actor=actor, target=("user", user_id)
            )

    def _is_unchanged(self, new_password: str, stored: str) -> bool:
        """Tell whether a password is the present one; no, where the pepper of that is lost."""
        try:
            return self._hasher.verify(new_password, stored).matches
        except PepperMissing:
            return False

    # Addresses

    def verify_email(self, token: str, *, actor: Actor) -> None:
        """Take an address as proven, or take over a new one. Raises InvalidToken, EmailTaken."""
        user_id = self._one_time_tokens.owner_of(token, *PROVING_AN_ADDRESS)
        with transaction() as session:
            user = self._locked_for_token(session, user_id)
            used = self._one_time_tokens.redeem(token, *PROVING_AN_ADDRESS)
            actor = as_user(actor, user)
            if used.purpose == TokenPurpose.EMAIL_CHANGE:
                self._accounts.replace_email(session, user, used.email, actor=actor)
            self._accounts.verify_email(session, user, actor=actor)
            if user.status == UserStatus.PENDING:
                self._accounts.make_active(session, user, actor=actor)

    def resend_verification(self, email: str, *, actor: Actor) -> None:
        """Send the link that proves an address once more, where one is waited for."""
        user_id, status, invited = self._known(email)
        waiting = user_id if status is UserStatus.PENDING and not invited else None
        with transaction():
            self._one_time_tokens.send(
                TokenPurpose.EMAIL_VERIFICATION, user_id=waiting, email=email, actor=actor
            )

    def request_email_change(
        self, user_id: UUID, new_email: str, *, current_password: str, actor: Actor
    ) -> None:
        """Ask the new address to confirm, and tell the old one.

        Of an address that is taken only its owner is told. Raises InvalidCredentials,
        TooManyAttempts, Invalid.
        """
        address = parse_email(new_email, field="new_email")
        self._authentication.require_password(user_id, current_password, actor=actor)
        with transaction() as session:
            user = self._locked_self(session, user_id)
            owner = session.execute(
                select(users.c.id).where(users.c.email_normalized == address.normalized)
            ).scalar_one_or_none()
            self._audit.record(
                AuditAction.USER_EMAIL_CHANGE_REQUESTED, actor=actor, target=("user", user_id)
            )
            if owner is None:
                self._one_time_tokens.send(
                    TokenPurpose.EMAIL_CHANGE, user_id=user_id, email=address.shown, actor=actor
                )
            else:
                self._mails.enqueue(
                    MailKind.ACCOUNT_EXISTS,
                    recipient=address.shown,
                    user_id=owner,
                    correlation_id=actor.correlation_id,
                )
            self._mails.enqueue(
                MailKind.EMAIL_CHANGE_NOTICE,
                recipient=user.email,
                user_id=user_id,
                correlation_id=actor.correlation_id,
            )

    # Leaving

    def delete_own_account(self, user_id: UUID, *, current_password: str, actor: Actor) -> None:
        """Delete the account of whoever asks. Raises InvalidCredentials, TooManyAttempts,
        LastSuperadmin.
        """
        self._authentication.require_password(user_id, current_password, actor=actor)
        with transaction() as session:
            user = self._locked_self(session, user_id)
            names = role_names_of(session, user_id)
            self._accounts.remove(session, user, names, actor=actor)

    # Steps

    def _known(self, email: str) -> tuple[UUID | None, UserStatus | None, bool]:
        """Return who has an address, their status, and whether they are invited."""
        query = select(users.c.id, users.c.status, users.c.password_hash.is_(None)).where(
            is_identified_by(canonical_identifier(email))
        )
        with reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None, None, False
        status = UserStatus(row[1])
        return row[0], status, bool(row[2]) and status is UserStatus.PENDING

    def _locked_for_token(self, session: Session, user_id: UUID) -> User:
        """Return whose one-time token it is, locked. Raises InvalidToken."""
        user = session.get(User, user_id, with_for_update=True)
        if user is None or user.status == UserStatus.SUSPENDED:
            raise InvalidToken()
        return user

    def _locked_self(self, session: Session, user_id: UUID) -> User:
        """Return whoever is signed in, locked; they may have been suspended since they asked."""
        user = session.get(User, user_id, with_for_update=True)
        if user is None or user.status != UserStatus.ACTIVE:
            raise TokenRevoked()
        return user
