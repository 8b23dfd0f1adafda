"""Request for another e-mail address, by the signed-in user."""

from uuid import UUID

from sqlalchemy import select

from userapi.accounts.addresses import parse_email
from userapi.accounts.views import users
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.authentication.owners import lock_active_user
from userapi.authentication.password_check import PasswordCheck
from userapi.infrastructure.database import transaction
from userapi.mail.models import MailKind
from userapi.mail.queue import MailQueue
from userapi.passwords.models import TokenPurpose
from userapi.passwords.one_time_tokens import OneTimeTokens
from userapi.recorder import Recorder


class EmailChange:
    """Starts changes of e-mail addresses; `EmailVerification` completes them."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        password_check: PasswordCheck,
        one_time_tokens: OneTimeTokens,
        mails: MailQueue,
    ) -> None:
        self._recorder = recorder
        self._password_check = password_check
        self._one_time_tokens = one_time_tokens
        self._mails = mails

    def request(
        self, user_id: UUID, new_email: str, *, current_password: str, actor: Actor
    ) -> None:
        """Send a link to the new address and a notice to the old one.

        If the new address is taken, only its owner is notified. Raises Busy, InvalidCredentials,
        TooManyAttempts, Invalid.
        """
        address = parse_email(new_email, field="new_email")
        self._password_check.require_current(user_id, current_password, actor=actor)
        with transaction() as session:
            user = lock_active_user(session, user_id)
            owner = session.execute(
                select(users.c.id).where(users.c.email_normalized == address.normalized)
            ).scalar_one_or_none()
            self._recorder.audit.record(
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
