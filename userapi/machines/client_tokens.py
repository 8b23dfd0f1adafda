"""Client credentials: a service exchanges one of its keys for a short-lived token (RFC 6749 §4.4).

A client token is checked against its key and its account at each request, so revoking the key,
suspending the account or removing a role takes effect immediately.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy import insert

from userapi.actor import Actor, ActorType, WithheldPermissions
from userapi.audit.actions import AuditAction, Outcome
from userapi.authentication.refusals import TokenExpired, TokenRefused, TokenRevoked
from userapi.authentication.tokens import AccessGrant, AccessTokens, IssuedToken
from userapi.errors import ServiceError
from userapi.infrastructure.database import table_of, transaction
from userapi.machines.active_keys import kept_key
from userapi.machines.errors import (
    InvalidClient,
    InvalidScope,
    InvalidTarget,
    OAuthRequestInvalid,
    UnauthorizedClient,
    UnsupportedGrantType,
)
from userapi.machines.key_authentication import KeyAuthentication
from userapi.machines.key_text import parse_key
from userapi.machines.key_usage import KeyUsage
from userapi.machines.models import ClientToken, OwnerType
from userapi.machines.networks import is_allowed
from userapi.machines.status import KeyLookup, KeyReference, LiveKey, OwnerNotActive
from userapi.permissions import NO_PERMISSIONS, PermissionSet, is_permission
from userapi.recorder import Recorder

GRANT_TYPE = "client_credentials"
SUCCESS = "success"
EXPIRED = "The client secret is right, but this key has expired."

_tokens = table_of(ClientToken)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecret:
    """The credentials of a client, as they were sent."""

    client_id: str
    secret: str

    @property
    def account_id(self) -> UUID | None:
        """Return the id of the service account, or None if the client id cannot be one."""
        return account_id_of(self.client_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A request for a token. Parameters that are None were not sent."""

    grant_type: str | None
    client: ClientSecret | None
    scope: str | None
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTokenView:
    """What a client receives (RFC 6749 §5.1). `scope` is empty if it holds no permission."""

    access_token: str
    expires_in: int
    scope: str


class ClientTokens:
    """Authenticates clients and issues their tokens."""

    def __init__(
        self,
        *,
        recorder: Recorder,
        keys: KeyAuthentication,
        usage: KeyUsage,
        access_tokens: AccessTokens,
        audience: str,
        count: Callable[[str], None],
    ) -> None:
        """`count` receives the outcome of each request: `success`, or the code of the error."""
        self._recorder = recorder
        self._keys = keys
        self._usage = usage
        self._access_tokens = access_tokens
        self._audience = audience
        self.count = count

    def lookup(self, client: ClientSecret) -> KeyLookup | None:
        """Return how to look up the key of a client in Redis, without reading the database."""
        owner_id = client.account_id
        try:
            reference = self.reference(client)
        except InvalidClient:
            return None
        return None if owner_id is None else self._keys.lookup_for(owner_id, reference)

    def issue(
        self,
        wanted: TokenRequest,
        *,
        actor: Actor,
        reply: object = None,
        before_failure: Callable[[], None] = lambda: None,
    ) -> ClientTokenView:
        """Return a token for a client. `reply` is that of Redis to `lookup`, if it was executed.

        `before_failure` is called before the audit row of a client that is not authenticated; what
        it raises takes the place of the row and of InvalidClient.

        Raises, in this order, OAuthRequestInvalid, UnsupportedGrantType, InvalidClient,
        UnauthorizedClient, InvalidTarget, InvalidScope. Each attempt of a client leaves an audit
        row.
        """
        try:
            issued = self._issue(wanted, actor, reply, before_failure)
        except ServiceError as refusal:
            self.count(refusal.code)
            raise
        self.count(SUCCESS)
        return issued

    def _issue(
        self,
        wanted: TokenRequest,
        actor: Actor,
        reply: object,
        before_failure: Callable[[], None],
    ) -> ClientTokenView:
        if wanted.grant_type is None:
            raise OAuthRequestInvalid("grant_type is missing.")
        if wanted.grant_type != GRANT_TYPE:
            raise UnsupportedGrantType()
        reference: KeyReference | None = None
        try:
            if wanted.client is None:
                raise InvalidClient("Send client_id and client_secret.")
            reference = self.reference(wanted.client)
            live = self._require_client(wanted.client, reference, actor.ip_address, reply)
            if any(target != self._audience for target in wanted.targets):
                raise InvalidTarget()
            held = self._keys.permissions_of(live)
            scope = held if wanted.scope is None else _requested(wanted.scope, held)
        except ServiceError as refusal:
            if isinstance(refusal, InvalidClient):
                before_failure()
            self._record_failure(refusal, wanted.client, reference, actor)
            raise
        return self._sign(live, scope, requested=wanted.scope is not None, actor=actor)

    def reference(self, client: ClientSecret) -> KeyReference:
        """Return the key that a client sent as its secret. Raises InvalidClient."""
        parsed = parse_key(client.secret)
        if parsed is None or parsed.owner_type is not OwnerType.SERVICE:
            raise InvalidClient()
        return KeyReference(parsed.key_id, parsed.owner_type, key=parsed)

    def _require_client(
        self, client: ClientSecret, reference: KeyReference, address: str | None, reply: object
    ) -> LiveKey:
        """Return the live key of a client. Raises InvalidClient, UnauthorizedClient.

        Only who holds the secret learns that the key is expired or revoked.
        """
        try:
            live = self._keys.require_live(reference, reply=reply)
        except TokenExpired as exc:
            raise InvalidClient(EXPIRED) from exc
        except OwnerNotActive as exc:
            if str(exc.owner_id) != client.client_id:
                raise InvalidClient() from exc
            if exc.expires_at is not None and exc.expires_at <= self._recorder.now():
                raise InvalidClient(EXPIRED) from exc
            raise UnauthorizedClient("The service account is suspended.") from exc
        except TokenRevoked as exc:
            raise InvalidClient("The client secret is right, but this key is revoked.") from exc
        except TokenRefused as exc:
            raise InvalidClient() from exc
        if str(live.owner_id) != client.client_id:
            raise InvalidClient()
        if not is_allowed(address, live.allowed_networks):
            raise UnauthorizedClient("This key cannot be used from this address.")
        return live

    def _sign(
        self, live: LiveKey, scope: PermissionSet, *, requested: bool, actor: Actor
    ) -> ClientTokenView:
        token = self._access_tokens.issue(
            AccessGrant(
                user_id=live.owner_id,
                session_id=live.key_id,
                session_version=live.token_version,
                roles=live.roles,
                permissions=tuple(scope),
                for_service=True,
                scope_requested=requested,
                ends_at=live.expires_at,
            )
        )
        names = " ".join(scope)
        issuer, action = acting_as(live, actor), AuditAction.AUTH_TOKEN_ISSUED
        target = ("service_account", live.owner_id)
        details = {"jti": token.jti, "scope_requested": requested}
        audit = self._recorder.audit
        if requested and token.permissions_omitted:
            with transaction() as session:
                if kept_key(session, live.key_id) is None:
                    raise InvalidClient()
                session.execute(insert(_tokens).values(_row_of(token, live, scope)))
                audit.record(action, actor=issuer, target=target, details=details)
        else:
            audit.record_alone(action, actor=issuer, target=target, details=details)
        self._usage.record(live, actor.ip_address)
        return ClientTokenView(
            access_token=token.token, expires_in=max(0, token.lifetime_seconds), scope=names
        )

    def _record_failure(
        self,
        refusal: ServiceError,
        client: ClientSecret | None,
        reference: KeyReference | None,
        actor: Actor,
    ) -> None:
        # Another text than an id may be a secret in the wrong field, and PostgreSQL stores no NUL.
        claimed = None if client is None else client.account_id
        details = {"error": refusal.code, "client_id": claimed}
        key_id = None if reference is None else reference.key_id
        self._recorder.audit.record_alone(
            AuditAction.AUTH_TOKEN_ISSUED,
            actor=replace(actor, key_id=key_id),
            outcome=Outcome.FAILURE,
            details=details,
        )


def account_id_of(client_id: str) -> UUID | None:
    """Return the id of the service account that a client id names, or None if it names none."""
    try:
        account_id = UUID(client_id)
    except ValueError:
        return None
    return account_id if str(account_id) == client_id else None


def acting_as(
    live: LiveKey,
    actor: Actor,
    *,
    permissions: PermissionSet = NO_PERMISSIONS,
    withheld: WithheldPermissions | None = None,
) -> Actor:
    """Return the actor as the owner of a key, with these permissions."""
    return Actor(
        type=actor_type_of(live.owner_type),
        id=live.owner_id,
        username=live.owner_name,
        session_id=actor.session_id,
        key_id=live.key_id,
        key_permissions=None if live.permissions is None else frozenset(live.permissions),
        permissions=permissions,
        withheld=withheld,
        ip_address=actor.ip_address,
        user_agent=actor.user_agent,
        correlation_id=actor.correlation_id,
        traceparent=actor.traceparent,
    )


def actor_type_of(owner: OwnerType) -> ActorType:
    """Return the kind of actor that the owner of a key is."""
    return ActorType.SERVICE if owner is OwnerType.SERVICE else ActorType.USER


def _requested(scope: str, held: PermissionSet) -> PermissionSet:
    """Return the requested permissions. Raises InvalidScope if one of them is not held."""
    names = scope.split(" ")
    wrong = [name for name in names if not is_permission(name) or name not in held]
    if wrong:
        shown = " ".join(name for name in wrong if is_permission(name))
        raise InvalidScope(f"The client does not hold: {shown}." if shown else None)
    return PermissionSet(names)


def _row_of(token: IssuedToken, live: LiveKey, scope: PermissionSet) -> dict[str, object]:
    return {
        "jti": UUID(token.jti),
        "key_id": live.key_id,
        "scope": list(scope),
        "expires_at": token.expires_at,
    }
