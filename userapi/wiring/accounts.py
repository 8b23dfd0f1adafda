"""Accounts and their roles: use cases, search, bulk changes, imports and exports."""

from dataclasses import dataclass

from userapi.accounts.bulk import BulkChanges
from userapi.accounts.creation import AccountCreation
from userapi.accounts.deletion import AccountDeletion
from userapi.accounts.editing import AccountEditing
from userapi.accounts.email_confirmation import EmailConfirmation
from userapi.accounts.exports import UserExports
from userapi.accounts.imports.importing import UserImports
from userapi.accounts.imports.insertion import UserInsertion
from userapi.accounts.imports.job_runner import ImportRunner
from userapi.accounts.imports.jobs import ImportJobs
from userapi.accounts.imports.screening import RowScreening
from userapi.accounts.imports.sealed_batches import SealedBatches
from userapi.accounts.locks import AccountLocks
from userapi.accounts.log_out_everyone import LogOutEveryone
from userapi.accounts.registration import Registration
from userapi.accounts.role_assignment import RoleAssignment
from userapi.accounts.search import UserSearch
from userapi.accounts.service import Accounts
from userapi.accounts.session_revocation import SessionRevocation
from userapi.accounts.suspension import AccountSuspension
from userapi.passwords.hashing import PasswordHasher
from userapi.passwords.hashing_pool import background_pool
from userapi.roles.editing import RoleEditor
from userapi.roles.service import Roles
from userapi.wiring.foundation import Foundation
from userapi.wiring.passwords import PasswordServices
from userapi.wiring.sessions import SessionServices


@dataclass(frozen=True, kw_only=True)
class AccountServices:
    """The services about accounts and roles."""

    account_creation: AccountCreation
    account_deletion: AccountDeletion
    account_editing: AccountEditing
    account_locks: AccountLocks
    account_suspension: AccountSuspension
    accounts: Accounts
    bulk: BulkChanges
    email_confirmation: EmailConfirmation
    import_jobs: ImportJobs
    import_runner: ImportRunner
    log_out_everyone: LogOutEveryone
    registration: Registration
    role_assignment: RoleAssignment
    role_editor: RoleEditor
    roles: Roles
    session_revocation: SessionRevocation
    user_exports: UserExports
    user_imports: UserImports
    user_search: UserSearch


def build_accounts(
    foundation: Foundation, passwords: PasswordServices, sessions: SessionServices
) -> AccountServices:
    """Build the services about accounts and roles."""
    settings, clock = foundation.settings, foundation.clock
    audit, mails = foundation.audit, foundation.mails
    one_time_tokens = passwords.one_time_tokens
    roles = Roles()
    accounts = Accounts(
        recorder=foundation.recorder,
        roles=roles,
        live=sessions.live_sessions,
        lockout=passwords.lockout,
    )
    deletion = AccountDeletion(accounts=accounts, sessions=sessions.sessions)
    role_assignment = RoleAssignment(accounts=accounts, roles=roles)
    suspension = AccountSuspension(
        accounts=accounts,
        clock=clock,
        one_time_tokens=one_time_tokens,
        sessions=sessions.sessions,
    )
    search = UserSearch(clock=clock, cursor_key=settings.secret_key)

    def imports(hasher: PasswordHasher) -> UserImports:
        return UserImports(
            screening=RowScreening(policy=passwords.policy, roles=roles),
            insertion=UserInsertion(recorder=foundation.recorder, one_time_tokens=one_time_tokens),
            hasher=hasher,
        )

    # Hashes of imports must not delay log-ins.
    background_hasher = PasswordHasher(
        peppers=passwords.peppers, rounds=settings.password_hash_rounds, pool=background_pool()
    )
    batches = SealedBatches(foundation.encryption)
    return AccountServices(
        account_creation=AccountCreation(
            accounts=accounts,
            audit=audit,
            roles=roles,
            passwords=passwords.password_tools,
            one_time_tokens=one_time_tokens,
        ),
        account_deletion=deletion,
        account_editing=AccountEditing(
            accounts=accounts,
            role_assignment=role_assignment,
            suspension=suspension,
            one_time_tokens=one_time_tokens,
            mails=mails,
        ),
        account_locks=AccountLocks(
            recorder=foundation.recorder,
            accounts=accounts,
            mails=mails,
            count_lock=foundation.metrics.lockouts.inc,
        ),
        account_suspension=suspension,
        accounts=accounts,
        bulk=BulkChanges(
            audit=audit,
            deletion=deletion,
            role_assignment=role_assignment,
            roles=roles,
            suspension=suspension,
        ),
        email_confirmation=EmailConfirmation(accounts=accounts, one_time_tokens=one_time_tokens),
        import_jobs=ImportJobs(
            clock=clock, audit=audit, batches=batches, cursor_key=settings.secret_key
        ),
        import_runner=ImportRunner(
            clock=clock, batches=batches, imports=imports(background_hasher), roles=roles
        ),
        log_out_everyone=LogOutEveryone(clock=clock, sessions=sessions.sessions),
        registration=Registration(
            accounts=accounts,
            passwords=passwords.password_tools,
            one_time_tokens=one_time_tokens,
            mails=mails,
            enabled=settings.feature_user_registration,
            verifies_email=settings.feature_email_verification,
        ),
        role_assignment=role_assignment,
        role_editor=RoleEditor(
            recorder=foundation.recorder, roles=roles, watcher=sessions.live_sessions
        ),
        roles=roles,
        session_revocation=SessionRevocation(accounts=accounts, sessions=sessions.sessions),
        user_exports=UserExports(clock=clock, audit=audit, search=search),
        user_imports=imports(passwords.hasher),
        user_search=search,
    )
