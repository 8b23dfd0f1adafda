"""Accounts and their roles: use cases, search, bulk changes, imports and exports."""

from dataclasses import dataclass

from userapi.accounts.bulk import BulkChanges
from userapi.accounts.exports import UserExports
from userapi.accounts.import_jobs import ImportJobs
from userapi.accounts.imports import UserImports
from userapi.accounts.log_out_everyone import LogOutEveryone
from userapi.accounts.search import UserSearch
from userapi.accounts.service import Accounts
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

    accounts: Accounts
    bulk: BulkChanges
    import_jobs: ImportJobs
    log_out_everyone: LogOutEveryone
    role_editor: RoleEditor
    roles: Roles
    user_exports: UserExports
    user_imports: UserImports
    user_search: UserSearch


def build_accounts(
    foundation: Foundation, passwords: PasswordServices, sessions: SessionServices
) -> AccountServices:
    """Build the services about accounts and roles."""
    settings, clock = foundation.settings, foundation.clock
    audit, outbox = foundation.audit, foundation.outbox
    roles = Roles()
    accounts = Accounts(
        settings=settings,
        clock=clock,
        audit=audit,
        outbox=outbox,
        roles=roles,
        sessions=sessions.sessions,
        live=sessions.live_sessions,
        lockout=passwords.lockout,
        hasher=passwords.hasher,
        policy=passwords.policy,
        one_time_tokens=passwords.one_time_tokens,
        mails=foundation.mails,
    )
    search = UserSearch(settings, clock)

    def imports(hasher: PasswordHasher) -> UserImports:
        return UserImports(
            clock=clock,
            audit=audit,
            outbox=outbox,
            roles=roles,
            hasher=hasher,
            policy=passwords.policy,
            one_time_tokens=passwords.one_time_tokens,
        )

    # Hashes of imports must not delay log-ins.
    background_hasher = PasswordHasher(
        peppers=passwords.peppers, rounds=settings.password_hash_rounds, gate=background_pool()
    )
    return AccountServices(
        accounts=accounts,
        bulk=BulkChanges(accounts=accounts, audit=audit, roles=roles),
        import_jobs=ImportJobs(
            clock=clock,
            audit=audit,
            encryption=foundation.encryption,
            imports=imports(background_hasher),
            roles=roles,
            cursor_key=settings.secret_key,
        ),
        log_out_everyone=LogOutEveryone(clock=clock, sessions=sessions.sessions),
        role_editor=RoleEditor(
            clock=clock, audit=audit, outbox=outbox, roles=roles, watcher=sessions.live_sessions
        ),
        roles=roles,
        user_exports=UserExports(clock=clock, audit=audit, search=search),
        user_imports=imports(passwords.hasher),
        user_search=search,
    )
