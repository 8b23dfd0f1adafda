"""Settings → Services: the only place that picks implementations and hands them to one another."""

from dataclasses import dataclass
from datetime import timedelta

from userapi.accounts.bulk import BulkChanges
from userapi.accounts.exports import UserExports
from userapi.accounts.import_jobs import ImportJobs
from userapi.accounts.imports import UserImports
from userapi.accounts.log_out_everyone import LogOutEveryone
from userapi.accounts.search import UserSearch
from userapi.accounts.service import Accounts
from userapi.accounts.views import ShownUsers
from userapi.audit.pruning import AuditPruning
from userapi.audit.seal_keys import SealKeys, seal_keys
from userapi.audit.seals import AuditSeals
from userapi.audit.service import AuditReader, AuditTrail
from userapi.audit.verification import AuditVerification
from userapi.authentication.introspection import Introspection
from userapi.authentication.keys import KeyRing
from userapi.authentication.recovery import Recovery
from userapi.authentication.service import Authentication
from userapi.authentication.tokens import AccessTokens, RefreshTokens
from userapi.cleanup import CleanUp
from userapi.clock import Clock, SystemClock
from userapi.events.expiry import EventExpiry
from userapi.events.outbox import Outbox
from userapi.health import Health
from userapi.infrastructure.encryption import EncryptionKeys
from userapi.infrastructure.rate_counters import MemoryRateCounter, RateCounter, RedisRateCounter
from userapi.infrastructure.redis_client import CircuitBreaker, Redis
from userapi.lockout.service import Lockout
from userapi.mail.mailer import FileMailer, Mailer, MailServer, SmtpMailer
from userapi.mail.messages import Messages
from userapi.mail.queue import MailQueue
from userapi.metrics import Figures, Metrics
from userapi.passwords.hashing import PasswordHasher
from userapi.passwords.hashing_pool import HashingPool, background_pool
from userapi.passwords.mail_delivery import MailDelivery
from userapi.passwords.one_time_tokens import OneTimeTokens
from userapi.passwords.peppers import Peppers
from userapi.passwords.policy import PasswordPolicy, PasswordRequirements
from userapi.roles.editing import RoleEditor
from userapi.roles.service import Roles
from userapi.sessions.cache import (
    INVALIDATION_BREAKER_SECONDS,
    INVALIDATION_TIMEOUT_SECONDS,
    RedisLiveSessions,
)
from userapi.sessions.service import SessionLimits, Sessions
from userapi.sessions.status import DatabaseLiveSessions, LiveSessions
from userapi.settings import Settings
from userapi.statistics import Statistics


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All that views, commands and the worker call."""

    settings: Settings
    clock: Clock
    accounts: Accounts
    audit: AuditTrail
    audit_pruning: AuditPruning
    audit_reader: AuditReader
    audit_seal_keys: SealKeys
    audit_seals: AuditSeals
    audit_verification: AuditVerification
    authentication: Authentication
    bulk: BulkChanges
    clean_up: CleanUp
    access_tokens: AccessTokens
    encryption: EncryptionKeys
    log_out_everyone: LogOutEveryone
    figures: Figures
    gate: HashingPool
    hasher: PasswordHasher
    health: Health
    import_jobs: ImportJobs
    introspection: Introspection
    keys: KeyRing
    live_sessions: LiveSessions
    lockout: Lockout
    mail_delivery: MailDelivery
    mail_server: MailServer | None
    mails: MailQueue
    metrics: Metrics
    one_time_tokens: OneTimeTokens
    outbox: Outbox
    peppers: Peppers
    policy: PasswordPolicy
    rates: RateCounter
    recovery: Recovery
    role_editor: RoleEditor
    roles: Roles
    sessions: Sessions
    statistics: Statistics
    user_exports: UserExports
    user_imports: UserImports
    user_search: UserSearch


def build_services(settings: Settings, clock: Clock | None = None) -> Services:
    """Build every service once. Connects to nothing. Raises SettingsError for unusable keys."""
    clock = clock or SystemClock()
    audit = AuditTrail(clock)
    peppers = Peppers(settings.password_pepper, settings.password_pepper_previous)
    health = Health(settings, clock, peppers)
    keys_of_seals = seal_keys(
        settings.audit_seal_key,
        previous=settings.audit_seal_key_previous,
        encryption_keys=(settings.encryption_key, *settings.encryption_key_previous),
        secret_key=settings.secret_key,
    )
    seals = AuditSeals(clock=clock, keys=keys_of_seals, trail=audit)
    verification = AuditVerification(keys=keys_of_seals)
    outbox = Outbox(clock)
    mails = MailQueue(clock)
    roles = Roles()
    keys = KeyRing(settings, clock)
    access_tokens = AccessTokens(settings, clock, keys)
    lockout = Lockout(
        clock,
        threshold=settings.lockout_threshold,
        base_seconds=settings.lockout_base_seconds,
        max_seconds=settings.lockout_max_seconds,
        secret_key=settings.secret_key,
    )
    metrics = Metrics()
    gate = HashingPool(
        queue_limit=settings.password_hash_queue,
        observe=metrics.hash_seconds.observe,
        observe_wait=metrics.hash_wait_seconds.observe,
        track=metrics.hash_queue.track_inprogress,
    )
    hasher = PasswordHasher(peppers=peppers, rounds=settings.password_hash_rounds, gate=gate)
    policy = _password_policy(settings)
    session_limits = _session_limits(settings)
    live: LiveSessions = DatabaseLiveSessions(
        clock, ShownUsers(), idle_timeout=session_limits.idle_timeout
    )
    rates: RateCounter = MemoryRateCounter(clock)
    if settings.redis_url:
        store = Redis(settings.redis_url)
        notes = Redis(
            settings.redis_url,
            timeout_seconds=INVALIDATION_TIMEOUT_SECONDS,
            breaker=CircuitBreaker(INVALIDATION_BREAKER_SECONDS),
        )
        live = RedisLiveSessions(
            clock,
            copy_seconds=settings.session_cache_seconds,
            questions=store,
            notes=notes,
            database=live,
        )
        rates = RedisRateCounter(store, clock)
    sessions = Sessions(clock=clock, audit=audit, outbox=outbox, live=live, limits=session_limits)
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
        peppers=peppers,
        policy=policy,
        one_time_tokens=one_time_tokens,
        mails=mails,
        accounts=accounts,
        access_tokens=access_tokens,
        refresh_tokens=RefreshTokens(settings, clock),
        count_lock=metrics.lockouts.inc,
    )
    user_search = UserSearch(settings, clock)
    mail_server = _mail_server(settings)
    encryption = EncryptionKeys(settings.encryption_key, previous=settings.encryption_key_previous)

    def user_imports(hasher: PasswordHasher) -> UserImports:
        return UserImports(
            clock=clock,
            audit=audit,
            outbox=outbox,
            roles=roles,
            hasher=hasher,
            policy=policy,
            one_time_tokens=one_time_tokens,
        )

    return Services(
        settings=settings,
        clock=clock,
        accounts=accounts,
        audit=audit,
        audit_pruning=AuditPruning(
            clock=clock, trail=audit, seals=seals, verification=verification
        ),
        audit_reader=AuditReader(trail=audit, cursor_key=settings.secret_key),
        audit_seal_keys=keys_of_seals,
        audit_seals=seals,
        audit_verification=verification,
        authentication=authentication,
        clean_up=CleanUp(clock, expiry=_event_expiry(settings, clock)),
        bulk=BulkChanges(accounts=accounts, audit=audit, roles=roles),
        access_tokens=access_tokens,
        encryption=encryption,
        log_out_everyone=LogOutEveryone(clock=clock, sessions=sessions),
        figures=Figures(
            clock=clock, health=health, sessions=sessions, seals=seals, peppers=peppers
        ),
        gate=gate,
        hasher=hasher,
        health=health,
        import_jobs=ImportJobs(
            clock=clock,
            audit=audit,
            encryption=encryption,
            imports=user_imports(
                PasswordHasher(
                    peppers=peppers,
                    rounds=settings.password_hash_rounds,
                    gate=background_pool(),
                )
            ),
            roles=roles,
            cursor_key=settings.secret_key,
        ),
        introspection=Introspection(settings=settings, authentication=authentication, roles=roles),
        keys=keys,
        live_sessions=live,
        lockout=lockout,
        mail_delivery=MailDelivery(
            clock=clock,
            mailer=_mailer(mail_server, settings, clock),
            messages=Messages(service_name=settings.app_name, base_url=settings.public_base_url),
            one_time_tokens=one_time_tokens,
        ),
        mail_server=mail_server,
        mails=mails,
        metrics=metrics,
        one_time_tokens=one_time_tokens,
        outbox=outbox,
        peppers=peppers,
        policy=policy,
        rates=rates,
        recovery=Recovery(
            audit=audit,
            accounts=accounts,
            authentication=authentication,
            hasher=hasher,
            mails=mails,
            one_time_tokens=one_time_tokens,
            policy=policy,
            roles=roles,
            sessions=sessions,
        ),
        roles=roles,
        sessions=sessions,
        statistics=Statistics(clock=clock, sessions=sessions),
        role_editor=RoleEditor(clock=clock, audit=audit, outbox=outbox, roles=roles, watcher=live),
        user_exports=UserExports(clock=clock, audit=audit, search=user_search),
        user_imports=user_imports(hasher),
        user_search=user_search,
    )


def _password_policy(settings: Settings) -> PasswordPolicy:
    requirements = PasswordRequirements(
        min_length=settings.password_min_length,
        min_score=settings.password_min_score,
        uppercase=settings.password_require_uppercase,
        lowercase=settings.password_require_lowercase,
        number=settings.password_require_numbers,
        special=settings.password_require_special,
    )
    return PasswordPolicy(requirements, service_name=settings.app_name)


def _session_limits(settings: Settings) -> SessionLimits:
    return SessionLimits(
        max_per_user=settings.session_max_per_user,
        idle_timeout=timedelta(days=settings.session_idle_timeout_days),
        lifetime=timedelta(days=settings.jwt_refresh_token_expire_days),
        remembered_lifetime=timedelta(days=settings.session_absolute_lifetime_days),
    )


def _mail_server(settings: Settings) -> MailServer | None:
    if not settings.smtp_host:
        return None
    return MailServer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        tls=settings.smtp_tls,
        user=settings.smtp_user,
        password=settings.smtp_password,
    )


def _mailer(server: MailServer | None, settings: Settings, clock: Clock) -> Mailer:
    """Return the mailer for the server; without one, mails are written to files."""
    if server is None:
        return FileMailer(settings.mail_folder, sender=settings.mail_from, clock=clock)
    return SmtpMailer(server, sender=settings.mail_from, clock=clock)


def _event_expiry(settings: Settings, clock: Clock) -> EventExpiry | None:
    """Return what deletes unsent events; None where a broker is to get them, sooner or later."""
    if settings.rabbitmq_url:
        return None
    return EventExpiry(clock=clock, kept=timedelta(days=settings.outbox_retention_days))
