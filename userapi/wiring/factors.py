"""Second factors: authenticator apps, recovery codes, and sign-ins that wait for a second step."""

from dataclasses import dataclass
from datetime import timedelta

from userapi.factors.app_setup import AppSetup
from userapi.factors.code_replacement import RecoveryCodeReplacement
from userapi.factors.codes import CodeCheck
from userapi.factors.recovery_codes import RecoveryCodes
from userapi.factors.removal import FactorRemoval
from userapi.factors.renaming import FactorRenaming
from userapi.factors.reset import MfaReset
from userapi.factors.service import Factors
from userapi.sessions.pending_sign_ins import PendingSignIns
from userapi.wiring.accounts import AccountServices
from userapi.wiring.directory import DirectoryServices
from userapi.wiring.foundation import Foundation
from userapi.wiring.metrics import MetricServices
from userapi.wiring.passwords import PasswordServices
from userapi.wiring.secrets import SecretServices
from userapi.wiring.sessions import SessionServices

# Recovery codes have 80 random bits: a lower cost than that of passwords protects them.
RECOVERY_CODE_ROUNDS = 10


@dataclass(frozen=True, kw_only=True)
class FactorServices:
    """The services about second factors."""

    app_setup: AppSetup
    code_check: CodeCheck
    factor_removal: FactorRemoval
    factor_renaming: FactorRenaming
    factors: Factors
    mfa_reset: MfaReset
    pending_sign_ins: PendingSignIns
    recovery_code_replacement: RecoveryCodeReplacement


def build_factors(
    foundation: Foundation,
    stored: SecretServices,
    measured: MetricServices,
    sessions: SessionServices,
    directory: DirectoryServices,
    passwords: PasswordServices,
    accounts: AccountServices,
) -> FactorServices:
    """Build the services about second factors."""
    settings, recorder, mails = foundation.settings, foundation.recorder, foundation.mails
    enforcement = directory.mfa_enforcement
    secrets = stored.totp_secrets
    recovery_codes = RecoveryCodes(
        pool=passwords.hashing_pool,
        rounds=min(RECOVERY_CODE_ROUNDS, settings.password_hash_rounds),
    )
    factors = Factors(
        recorder=recorder,
        accounts=directory.accounts,
        sessions=sessions.sessions,
        mails=mails,
        recovery_codes=recovery_codes,
    )
    return FactorServices(
        app_setup=AppSetup(
            recorder=recorder,
            accounts=directory.accounts,
            secrets=secrets,
            issuer=settings.mfa_issuer,
            enabled=settings.feature_mfa,
        ),
        code_check=CodeCheck(
            recorder=recorder,
            lockout=directory.lockout,
            locks=accounts.account_locks,
            secrets=secrets,
            recovery_codes=recovery_codes,
            mails=mails,
            count=measured.metrics.count_second_step,
        ),
        factor_removal=FactorRemoval(
            recorder=recorder,
            accounts=directory.accounts,
            roles=directory.roles,
            enforcement=enforcement,
            factors=factors,
            sessions=sessions.sessions,
        ),
        factor_renaming=FactorRenaming(recorder=recorder, accounts=directory.accounts),
        factors=factors,
        mfa_reset=MfaReset(
            recorder=recorder,
            accounts=directory.accounts,
            factors=factors,
            sessions=sessions.sessions,
        ),
        pending_sign_ins=PendingSignIns(
            foundation.clock, lifetime=timedelta(seconds=settings.mfa_token_seconds)
        ),
        recovery_code_replacement=RecoveryCodeReplacement(
            accounts=directory.accounts, factors=factors, recovery_codes=recovery_codes
        ),
    )
