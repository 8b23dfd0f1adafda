"""Authentication: log-in, refresh, log-out, and what users do with their own accounts."""

from dataclasses import dataclass
from datetime import timedelta

from userapi.authentication.app_confirmation import AppConfirmation
from userapi.authentication.email_change import EmailChange
from userapi.authentication.email_verification import EmailVerification
from userapi.authentication.forced_reset import ForcedReset
from userapi.authentication.freshness import Freshness
from userapi.authentication.log_in import LogIn
from userapi.authentication.log_out import LogOut
from userapi.authentication.new_passwords import NewPasswords
from userapi.authentication.own_account_deletion import OwnAccountDeletion
from userapi.authentication.passkey_enrollment import PasskeyEnrollment
from userapi.authentication.passkey_sign_in import PasskeySignIn
from userapi.authentication.password_assignment import PasswordAssignment
from userapi.authentication.password_change import PasswordChange
from userapi.authentication.password_check import PasswordCheck
from userapi.authentication.recovery import Recovery
from userapi.authentication.refresh import Refresh
from userapi.authentication.second_step import SecondStep
from userapi.authentication.second_step_demand import SecondStepDemand
from userapi.authentication.session_renewal import SessionRenewal
from userapi.authentication.sign_in_completion import SignInCompletion
from userapi.authentication.standing_credentials import StandingCredentials
from userapi.authentication.step_up import StepUp
from userapi.machines.credential_revocation import CredentialRevocation
from userapi.wiring.accounts import AccountServices
from userapi.wiring.directory import DirectoryServices
from userapi.wiring.factor_listing import FactorListServices
from userapi.wiring.factors import FactorServices
from userapi.wiring.foundation import Foundation
from userapi.wiring.machines import MachineServices
from userapi.wiring.metrics import MetricServices
from userapi.wiring.passkeys import PasskeyServices
from userapi.wiring.passwords import PasswordServices
from userapi.wiring.secrets import SecretServices
from userapi.wiring.sessions import SessionServices
from userapi.wiring.tokens import TokenServices


@dataclass(frozen=True, kw_only=True)
class AuthenticationServices:
    """The services about authentication."""

    app_confirmation: AppConfirmation
    credential_revocation: CredentialRevocation
    email_change: EmailChange
    email_verification: EmailVerification
    forced_reset: ForcedReset
    freshness: Freshness
    log_in: LogIn
    log_out: LogOut
    own_account_deletion: OwnAccountDeletion
    passkey_enrollment: PasskeyEnrollment
    passkey_sign_in: PasskeySignIn
    password_assignment: PasswordAssignment
    password_change: PasswordChange
    recovery: Recovery
    refresh: Refresh
    second_step: SecondStep
    session_renewal: SessionRenewal
    step_up: StepUp


def build_authentication(
    foundation: Foundation,
    secrets: SecretServices,
    measured: MetricServices,
    sessions: SessionServices,
    directory: DirectoryServices,
    passwords: PasswordServices,
    accounts: AccountServices,
    tokens: TokenServices,
    factors: FactorServices,
    listed: FactorListServices,
    passkeys: PasskeyServices,
    machines: MachineServices,
) -> AuthenticationServices:
    """Build the services about authentication."""
    recorder, mails = foundation.recorder, foundation.mails
    one_time_tokens = passwords.one_time_tokens
    password_check = PasswordCheck(
        recorder=recorder,
        lockout=directory.lockout,
        hasher=passwords.hasher,
        peppers=secrets.peppers,
        locks=accounts.account_locks,
    )
    new_passwords = NewPasswords(
        recorder=recorder,
        accounts=directory.accounts,
        one_time_tokens=one_time_tokens,
        mails=mails,
    )
    completion = SignInCompletion(
        recorder=recorder,
        accounts=directory.accounts,
        lockout=directory.lockout,
        sessions=sessions.sessions,
        count=measured.metrics.count_sign_in,
    )
    renewal = SessionRenewal(
        recorder=recorder, sessions=sessions.sessions, live=sessions.live_sessions
    )
    log_out = LogOut(recorder=recorder, sessions=sessions.sessions)
    return AuthenticationServices(
        app_confirmation=AppConfirmation(
            recorder=recorder,
            setup=factors.app_setup,
            factors=factors.factors,
            renewal=renewal,
            token_pairs=tokens.token_pairs,
        ),
        credential_revocation=CredentialRevocation(
            recorder=recorder,
            log_out=log_out,
            token_status=tokens.token_status,
            keys=machines.key_authentication,
            owners=machines.key_owners,
            revocation=machines.key_revocation,
        ),
        email_change=EmailChange(
            recorder=recorder,
            password_check=password_check,
            one_time_tokens=one_time_tokens,
            mails=mails,
        ),
        email_verification=EmailVerification(
            email_confirmation=accounts.email_confirmation, one_time_tokens=one_time_tokens
        ),
        forced_reset=ForcedReset(
            recorder=recorder,
            accounts=directory.accounts,
            one_time_tokens=one_time_tokens,
            sessions=sessions.sessions,
        ),
        freshness=Freshness(
            foundation.clock,
            max_age_seconds=foundation.settings.step_up_max_age_seconds,
            step_up_permissions=foundation.settings.step_up_permissions,
        ),
        log_in=LogIn(
            recorder=recorder,
            password_check=password_check,
            lockout=directory.lockout,
            accounts=directory.accounts,
            completion=completion,
            second_step=SecondStepDemand(
                recorder=recorder,
                pending=factors.pending_sign_ins,
                factors=listed.factor_list,
            ),
            token_pairs=tokens.token_pairs,
        ),
        log_out=log_out,
        own_account_deletion=OwnAccountDeletion(
            deletion=accounts.account_deletion, password_check=password_check
        ),
        passkey_enrollment=PasskeyEnrollment(
            recorder=recorder,
            registration=passkeys.passkey_registration,
            factors=factors.factors,
            renewal=renewal,
            token_pairs=tokens.token_pairs,
        ),
        passkey_sign_in=PasskeySignIn(
            recorder=recorder,
            assertion=passkeys.passkey_assertion,
            accounts=directory.accounts,
            completion=completion,
            token_pairs=tokens.token_pairs,
            enabled=foundation.settings.adds_passkeys,
        ),
        password_assignment=PasswordAssignment(
            recorder=recorder,
            passwords=passwords.password_tools,
            new_passwords=new_passwords,
            accounts=directory.accounts,
            sessions=sessions.sessions,
        ),
        password_change=PasswordChange(
            recorder=recorder,
            password_check=password_check,
            passwords=passwords.password_tools,
            new_passwords=new_passwords,
            sessions=sessions.sessions,
            renewal=renewal,
            token_pairs=tokens.token_pairs,
        ),
        recovery=Recovery(
            credentials=StandingCredentials(
                sessions=sessions.sessions, keys=machines.key_revocation
            ),
            recorder=recorder,
            accounts=directory.accounts,
            email_confirmation=accounts.email_confirmation,
            passwords=passwords.password_tools,
            new_passwords=new_passwords,
            one_time_tokens=one_time_tokens,
        ),
        refresh=Refresh(
            recorder=recorder,
            sessions=sessions.sessions,
            refresh_tokens=tokens.refresh_tokens,
            token_pairs=tokens.token_pairs,
            reuse_grace=timedelta(seconds=foundation.settings.refresh_reuse_grace_seconds),
            live=sessions.live_sessions,
            count_ahead=measured.metrics.sessions_ahead.inc,
        ),
        second_step=SecondStep(
            recorder=recorder,
            pending=factors.pending_sign_ins,
            codes=factors.code_check,
            passkeys=passkeys.passkey_assertion,
            completion=completion,
            token_pairs=tokens.token_pairs,
        ),
        session_renewal=renewal,
        step_up=StepUp(
            recorder=recorder,
            password_check=password_check,
            codes=factors.code_check,
            passkeys=passkeys.passkey_assertion,
            factors=listed.factor_list,
            renewal=renewal,
            token_pairs=tokens.token_pairs,
        ),
    )
