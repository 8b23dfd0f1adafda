"""Imports of users: within the request, and as jobs of the worker."""

from dataclasses import dataclass

from userapi.accounts.imports.importing import UserImports
from userapi.accounts.imports.insertion import UserInsertion
from userapi.accounts.imports.job_models import ImportView, jobs_table, view_of_job
from userapi.accounts.imports.job_runner import ImportRunner
from userapi.accounts.imports.jobs import ImportJobs
from userapi.accounts.imports.screening import RowScreening
from userapi.accounts.imports.sealed_batches import SealedBatches
from userapi.accounts.job_history import JobHistory
from userapi.passwords.hashing import PasswordHasher
from userapi.passwords.hashing_pool import background_pool
from userapi.wiring.directory import DirectoryServices
from userapi.wiring.foundation import Foundation
from userapi.wiring.passwords import PasswordServices
from userapi.wiring.secrets import SecretServices


@dataclass(frozen=True, kw_only=True)
class ImportServices:
    """The services that import users."""

    import_history: JobHistory[ImportView]
    import_jobs: ImportJobs
    import_runner: ImportRunner
    user_imports: UserImports


def build_imports(
    foundation: Foundation,
    secrets: SecretServices,
    directory: DirectoryServices,
    passwords: PasswordServices,
) -> ImportServices:
    """Build the services that import users."""
    settings, clock = foundation.settings, foundation.clock

    def imports(hasher: PasswordHasher) -> UserImports:
        return UserImports(
            screening=RowScreening(policy=passwords.policy, roles=directory.roles),
            insertion=UserInsertion(
                recorder=foundation.recorder, one_time_tokens=passwords.one_time_tokens
            ),
            hasher=hasher,
        )

    # Hashes of imports must not delay log-ins.
    background_hasher = PasswordHasher(
        peppers=secrets.peppers, rounds=settings.password_hash_rounds, pool=background_pool()
    )
    batches = SealedBatches(secrets.encryption)
    return ImportServices(
        import_history=JobHistory(
            jobs_table,
            size="row_count",
            name="imports",
            cursor_key=settings.secret_key,
            view=view_of_job,
        ),
        import_jobs=ImportJobs(
            clock=clock, audit=foundation.audit, batches=batches, cursor_key=settings.secret_key
        ),
        import_runner=ImportRunner(
            clock=clock,
            batches=batches,
            imports=imports(background_hasher),
            roles=directory.roles,
        ),
        user_imports=imports(passwords.hasher),
    )
