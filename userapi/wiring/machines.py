"""Service accounts, API keys and client tokens."""

from dataclasses import dataclass

from userapi.machines.account_creation import ServiceAccountCreation
from userapi.machines.account_deletion import ServiceAccountDeletion
from userapi.machines.account_editing import ServiceAccountEditing
from userapi.machines.account_search import ServiceAccountSearch
from userapi.machines.account_suspension import ServiceAccountSuspension
from userapi.machines.accounts import ServiceAccounts
from userapi.machines.client_tokens import ClientTokens
from userapi.machines.copies import RedisLiveKeys
from userapi.machines.introspection import CredentialIntrospection
from userapi.machines.key_authentication import KeyAuthentication
from userapi.machines.key_creation import KeyCreation
from userapi.machines.key_editing import KeyEditing
from userapi.machines.key_expiry import KeyExpiry
from userapi.machines.key_owners import KeyOwners
from userapi.machines.key_refusals import KeyRefusals
from userapi.machines.key_revocation import KeyRevocation
from userapi.machines.key_rotation import KeyRotation
from userapi.machines.key_usage import KeyUsage
from userapi.machines.keys import ApiKeys
from userapi.machines.overview import MachineOverview
from userapi.machines.status import DatabaseLiveKeys, LiveKeys
from userapi.machines.validation import KeyLifetimes
from userapi.wiring.directory import DirectoryServices
from userapi.wiring.foundation import Foundation
from userapi.wiring.metrics import MetricServices
from userapi.wiring.sessions import SessionServices
from userapi.wiring.tokens import TokenServices


@dataclass(frozen=True, kw_only=True)
class MachineServices:
    """The services about service accounts, API keys and client tokens."""

    api_keys: ApiKeys
    client_tokens: ClientTokens
    credential_introspection: CredentialIntrospection
    key_authentication: KeyAuthentication
    key_creation: KeyCreation
    key_editing: KeyEditing
    key_expiry: KeyExpiry
    key_owners: KeyOwners
    key_refusals: KeyRefusals
    key_revocation: KeyRevocation
    key_rotation: KeyRotation
    key_usage: KeyUsage
    live_keys: LiveKeys
    machine_overview: MachineOverview
    service_account_creation: ServiceAccountCreation
    service_account_deletion: ServiceAccountDeletion
    service_account_editing: ServiceAccountEditing
    service_account_search: ServiceAccountSearch
    service_account_suspension: ServiceAccountSuspension
    service_accounts: ServiceAccounts


def build_machines(
    foundation: Foundation,
    measured: MetricServices,
    sessions: SessionServices,
    directory: DirectoryServices,
    tokens: TokenServices,
) -> MachineServices:
    """Build the services about service accounts, API keys and client tokens."""
    settings, clock, recorder = foundation.settings, foundation.clock, foundation.recorder
    metrics, roles = measured.metrics, directory.roles
    live = _live_keys(foundation, sessions)
    service_accounts = ServiceAccounts(recorder=recorder, roles=roles, live=live)
    keys = ApiKeys(recorder=recorder, live=live, max_per_owner=settings.api_key_max_per_owner)
    owners = KeyOwners(accounts=directory.accounts, service_accounts=service_accounts, roles=roles)
    revocation = KeyRevocation(recorder=recorder, keys=keys, owners=owners)
    lifetimes = KeyLifetimes(
        default_days=settings.api_key_default_days, max_days=settings.api_key_max_days
    )
    authentication = KeyAuthentication(
        live=live,
        roles=roles,
        count=lambda outcome: metrics.key_checks.labels(outcome).inc(),
    )
    usage = KeyUsage(clock)
    return MachineServices(
        api_keys=keys,
        client_tokens=ClientTokens(
            recorder=recorder,
            keys=authentication,
            usage=usage,
            access_tokens=tokens.access_tokens,
            audience=settings.jwt_audience,
            count=lambda outcome: metrics.tokens_issued.labels(outcome).inc(),
        ),
        credential_introspection=CredentialIntrospection(
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            of_users=tokens.introspection,
            token_status=tokens.token_status,
            keys=authentication,
        ),
        key_authentication=authentication,
        key_creation=KeyCreation(
            recorder=recorder,
            keys=keys,
            owners=owners,
            lifetimes=lifetimes,
            prefix=settings.api_key_prefix,
            personal_keys=settings.feature_personal_api_keys,
        ),
        key_editing=KeyEditing(keys=keys, owners=owners),
        key_expiry=KeyExpiry(
            clock=clock, outbox=foundation.outbox, owners=owners, mails=foundation.mails
        ),
        key_owners=owners,
        key_refusals=KeyRefusals(recorder),
        key_revocation=revocation,
        key_rotation=KeyRotation(
            recorder=recorder,
            keys=keys,
            owners=owners,
            revocation=revocation,
            lifetimes=lifetimes,
            prefix=settings.api_key_prefix,
            personal_keys=settings.feature_personal_api_keys,
        ),
        key_usage=usage,
        live_keys=live,
        machine_overview=MachineOverview(clock),
        service_account_creation=ServiceAccountCreation(
            recorder=recorder, service_accounts=service_accounts, roles=roles
        ),
        service_account_deletion=ServiceAccountDeletion(service_accounts=service_accounts),
        service_account_editing=ServiceAccountEditing(service_accounts=service_accounts),
        service_account_search=ServiceAccountSearch(clock=clock, cursor_key=settings.secret_key),
        service_account_suspension=ServiceAccountSuspension(service_accounts=service_accounts),
        service_accounts=service_accounts,
    )


def _live_keys(foundation: Foundation, sessions: SessionServices) -> LiveKeys:
    database = DatabaseLiveKeys(
        foundation.clock, personal_keys=foundation.settings.feature_personal_api_keys
    )
    if sessions.copies is None:
        return database
    return RedisLiveKeys(foundation.clock, copies=sessions.copies, database=database)
