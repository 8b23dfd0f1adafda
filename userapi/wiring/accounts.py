"""Accounts and their roles: use cases, bulk changes and exports."""

from dataclasses import dataclass

from userapi.accounts.address_confirmation import AddressConfirmation
from userapi.accounts.bulk import BulkChanges
from userapi.accounts.bulk_jobs.jobs import BulkJobs
from userapi.accounts.bulk_jobs.models import BulkJobView, jobs_table, view_of_job
from userapi.accounts.bulk_jobs.runner import BulkRunner
from userapi.accounts.creation import AccountCreation
from userapi.accounts.deletion import AccountDeletion
from userapi.accounts.editing import AccountEditing
from userapi.accounts.email_confirmation import EmailConfirmation
from userapi.accounts.exports import UserExports
from userapi.accounts.job_history import JobHistory
from userapi.accounts.locks import AccountLocks
from userapi.accounts.log_out_everyone import LogOutEveryone
from userapi.accounts.registration import Registration
from userapi.accounts.role_assignment import RoleAssignment
from userapi.accounts.saved_filters import SavedFilters
from userapi.accounts.session_revocation import SessionRevocation
from userapi.accounts.suspension import AccountSuspension
from userapi.roles.editing import RoleEditor
from userapi.wiring.directory import DirectoryServices
from userapi.wiring.foundation import Foundation
from userapi.wiring.metrics import MetricServices
from userapi.wiring.passwords import PasswordServices
from userapi.wiring.search import SearchServices
from userapi.wiring.sessions import SessionServices


@dataclass(frozen=True, kw_only=True)
class AccountServices:
    """The services about accounts and roles."""

    account_creation: AccountCreation
    account_deletion: AccountDeletion
    account_editing: AccountEditing
    account_locks: AccountLocks
    account_suspension: AccountSuspension
    address_confirmation: AddressConfirmation
    bulk: BulkChanges
    bulk_history: JobHistory[BulkJobView]
    bulk_jobs: BulkJobs
    bulk_runner: BulkRunner
    email_confirmation: EmailConfirmation
    log_out_everyone: LogOutEveryone
    registration: Registration
    role_assignment: RoleAssignment
    role_editor: RoleEditor
    saved_filters: SavedFilters
    session_revocation: SessionRevocation
    user_exports: UserExports


def build_accounts(
    foundation: Foundation,
    measured: MetricServices,
    sessions: SessionServices,
    directory: DirectoryServices,
    search: SearchServices,
    passwords: PasswordServices,
) -> AccountServices:
    """Build the services about accounts and roles."""
    settings, clock = foundation.settings, foundation.clock
    audit, mails = foundation.audit, foundation.mails
    one_time_tokens = passwords.one_time_tokens
    accounts, roles = directory.accounts, directory.roles
    deletion = AccountDeletion(accounts=accounts, sessions=sessions.sessions)
    role_assignment = RoleAssignment(accounts=accounts, roles=roles)
    suspension = AccountSuspension(
        accounts=accounts,
        clock=clock,
        one_time_tokens=one_time_tokens,
        sessions=sessions.sessions,
    )
    email_confirmation = EmailConfirmation(accounts=accounts, one_time_tokens=one_time_tokens)
    bulk = BulkChanges(
        audit=audit,
        deletion=deletion,
        role_assignment=role_assignment,
        roles=roles,
        suspension=suspension,
    )
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
            count_lock=measured.metrics.lockouts.inc,
        ),
        account_suspension=suspension,
        address_confirmation=AddressConfirmation(
            accounts=accounts, email_confirmation=email_confirmation
        ),
        bulk=bulk,
        bulk_history=JobHistory(
            jobs_table,
            size="user_count",
            name="bulk-jobs",
            cursor_key=settings.secret_key,
            view=view_of_job,
        ),
        bulk_jobs=BulkJobs(
            clock=clock,
            audit=audit,
            bulk=bulk,
            search=search.user_search,
            cursor_key=settings.secret_key,
        ),
        bulk_runner=BulkRunner(clock=clock, bulk=bulk, roles=roles),
        email_confirmation=email_confirmation,
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
        saved_filters=SavedFilters(clock=clock),
        session_revocation=SessionRevocation(accounts=accounts, sessions=sessions.sessions),
        user_exports=UserExports(clock=clock, audit=audit, search=search.user_search),
    )
