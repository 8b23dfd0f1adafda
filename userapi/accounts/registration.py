"""Registration: a person creates their own account."""

from sqlalchemy import select

from userapi.accounts.addresses import parse_email
from userapi.accounts.errors import EmailTaken, RegistrationDisabled
from userapi.accounts.models import UserStatus
from userapi.accounts.new_users import NewUser
from userapi.accounts.service import Accounts
from userapi.accounts.validation import require_valid_account
from userapi.accounts.views import UserView, users
from userapi.actor import Actor
from userapi.audit.actions import AuditAction
from userapi.events.catalogue import EventType
from userapi.infrastructure.database import require_transaction, transaction
from userapi.infrastructure.idempotency_keys import IdempotencyStore
from userapi.mail.models import MailKind
from userapi.mail.queue import MailQueue
from userapi.passwords.models import TokenPurpose
from userapi.passwords.one_time_tokens import OneTimeTokens
from userapi.passwords.tools import PasswordTools
from userapi.roles.assignment import give_first_roles
from userapi.roles.models import BASE_ROLE


class Registration:
    """Creates the account that a person registers."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        passwords: PasswordTools,
        one_time_tokens: OneTimeTokens,
        mails: MailQueue,
        enabled: bool,
        verifies_email: bool,
    ) -> None:
        self._accounts = accounts
        self._passwords = passwords
        self._one_time_tokens = one_time_tokens
        self._mails = mails
        self._enabled = enabled
        self._verifies_email = verifies_email

    def register(
        self, new: NewUser, *, actor: Actor, idempotency: IdempotencyStore | None = None
    ) -> UserView | None:
        """Create an account with the base role and return it.

        The account is active. Where e-mail addresses are verified, it is pending until its owner
        follows the link in a mail. The result is then None for new and taken addresses alike, so
        that it does not reveal who has an account; the owner of a taken address receives a mail.
        Raises RegistrationDisabled, Invalid, UsernameTaken, EmailTaken.
        """
        if not self._enabled:
            raise RegistrationDisabled()
        password = new.password or ""
        require_valid_account(
            {"username": new.username, "email": new.email, "password": password},
            self._passwords.policy,
            reserved_allowed=False,
        )
        password_hash = self._passwords.hasher.hash(password)
        with transaction():
            if idempotency:
                idempotency.claim()
            view: UserView | None = None
            try:
                view = self._create(new, password_hash, actor)
            except EmailTaken:
                if not self._verifies_email:
                    raise
                self._notify_owner(new.email, actor)
            answer = None if self._verifies_email else view
            if idempotency:
                idempotency.store(answer, user_id=answer.id if answer else None)
        return answer

    def _create(self, new: NewUser, password_hash: str, actor: Actor) -> UserView:
        session = require_transaction()
        status = UserStatus.PENDING if self._verifies_email else UserStatus.ACTIVE
        # A savepoint: the transaction continues after a conflict.
        with session.begin_nested():
            user_id = self._accounts.add(session, new, password_hash, status)
        give_first_roles(user_id, [BASE_ROLE])
        view = self._accounts.view(session, user_id)
        self._accounts.record(
            view, AuditAction.USER_REGISTERED, EventType.USER_REGISTERED, actor=actor
        )
        if self._verifies_email:
            self._one_time_tokens.send(
                TokenPurpose.EMAIL_VERIFICATION, user_id=user_id, email=view.email, actor=actor
            )
        return view

    def _notify_owner(self, email: str, actor: Actor) -> None:
        """Mail the owner of a taken address that someone tried to register with it."""
        address = parse_email(email)
        owner_id = (
            require_transaction()
            .execute(select(users.c.id).where(users.c.email_normalized == address.normalized))
            .scalar_one_or_none()
        )
        self._mails.enqueue(
            MailKind.ACCOUNT_EXISTS,
            recipient=address.shown,
            user_id=owner_id,
            correlation_id=actor.correlation_id,
        )
