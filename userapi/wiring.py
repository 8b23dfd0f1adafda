"""Settings → Services: the only place that picks implementations and hands them to one another."""

from dataclasses import dataclass

from userapi.accounts.bulk import BulkChanges
from userapi.accounts.exports import UserExports
from userapi.accounts.imports import UserImports
from userapi.accounts.search import UserSearch
from userapi.accounts.service import Accounts
from userapi.audit.service import AuditReader, AuditTrail
from userapi.authentication.keys import KeyRing
from userapi.authentication.service import Authentication
from userapi.authentication.tokens import AccessTokens, RefreshTokens
from userapi.clock import Clock, SystemClock
from userapi.events.outbox import Outbox
from userapi.health import Health
from userapi.lockout.service import Lockout
from userapi.mail.queue import MailQueue
from userapi.passwords.gate import HashingGate
from userapi.passwords.hashing import PasswordHasher
from userapi.passwords.one_time_tokens import OneTimeTokens
from userapi.passwords.policy import PasswordPolicy
from userapi.roles.editing import RoleEditor
from userapi.roles.service import Roles
from userapi.sessions.service import Sessions
from userapi.sessions.status import DatabaseLiveSessions, LiveSessions
from userapi.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All that views, commands and the worker call."""

    settings: Settings
    clock: Clock
    accounts: Accounts
    audit: AuditTrail
    audit_reader: AuditReader
    authentication: Authentication
    bulk: BulkChanges
    access_tokens: AccessTokens
    gate: HashingGate
    hasher: PasswordHasher
    health: Health
    keys: KeyRing
    live_sessions: LiveSessions
    lockout: Lockout
    mails: MailQueue
    one_time_tokens: OneTimeTokens
    outbox: Outbox
    policy: PasswordPolicy
    role_editor: RoleEditor
    roles: Roles
    sessions: Sessions
    user_exports: UserExports
    user_imports: UserImports
    user_search: UserSearch


def build_services(settings: Settings, clock: Clock | None = None) -> Services:
    """Build every service once. Connects to nothing. Raises SettingsError for unusable keys."""
    clock = clock or SystemClock()
    audit = AuditTrail(clock)
    outbox = Outbox(clock)
    mails = MailQueue(clock)
    roles = Roles()
    keys = KeyRing(settings, clock)
    access_tokens = AccessTokens(settings, clock, keys)
    lockout = Lockout(settings, clock)
    gate = HashingGate(queue_limit=settings.password_hash_queue)
    hasher = PasswordHasher(
        pepper=settings.password_pepper,
        former_peppers=settings.password_pepper_previous,
        rounds=settings.password_hash_rounds,
        gate=gate,
    )
    policy = PasswordPolicy(settings)
    live = DatabaseLiveSessions(settings, clock)
    sessions = Sessions(settings=settings, clock=clock, audit=audit, outbox=outbox, live=live)
    one_time_tokens = OneTimeTokens(clock=clock, mails=mails)
    accounts = Accounts(
        settings=settings,
        clock=clock,
        audit=audit,
        outbox=outbox,
        roles=roles,
        sessions=sessions,
        live=live,
        lockout=lockout,
        hasher=hasher,
        policy=policy,
        one_time_tokens=one_time_tokens,
        mails=mails,
    )
    authentication = Authentication(
        settings=settings,
        clock=clock,
        audit=audit,
        outbox=outbox,
        roles=roles,
        sessions=sessions,
        live=live,
        lockout=lockout,
        hasher=hasher,
        policy=policy,
        one_time_tokens=one_time_tokens,
        mails=mails,
        accounts=accounts,
        access_tokens=access_tokens,
        refresh_tokens=RefreshTokens(settings, clock),
    )
    user_search = UserSearch(settings, clock)
    return Services(
        settings=settings,
        clock=clock,
        accounts=accounts,
        audit=audit,
        audit_reader=AuditReader(settings=settings, trail=audit),
        authentication=authentication,
        bulk=BulkChanges(accounts=accounts, audit=audit, roles=roles),
        access_tokens=access_tokens,
        gate=gate,
        hasher=hasher,
        health=Health(settings, clock),
        keys=keys,
        live_sessions=live,
        lockout=lockout,
        mails=mails,
        one_time_tokens=one_time_tokens,
        outbox=outbox,
        policy=policy,
        role_editor=RoleEditor(clock=clock, audit=audit, outbox=outbox, roles=roles, watcher=live),
        roles=roles,
        sessions=sessions,
        user_exports=UserExports(clock=clock, audit=audit, search=user_search),
        user_imports=UserImports(
            clock=clock,
            audit=audit,
            outbox=outbox,
            roles=roles,
            hasher=hasher,
            policy=policy,
            one_time_tokens=one_time_tokens,
        ),
        user_search=user_search,
    )
