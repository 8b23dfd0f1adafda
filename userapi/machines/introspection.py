"""Introspection of every kind of credential (RFC 7662): also API keys and client tokens."""

from dataclasses import dataclass
from uuid import UUID

from userapi.authentication.introspection import ActiveToken, Introspection
from userapi.authentication.refusals import TokenRefused
from userapi.authentication.token_claims import AccessClaims
from userapi.authentication.token_status import TokenStatus
from userapi.machines.key_authentication import KeyAuthentication
from userapi.machines.key_text import looks_like_key
from userapi.machines.models import OwnerType
from userapi.machines.status import LiveKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveKey:
    """An API key that is accepted now. Fields that are None are absent."""

    active: bool = True
    sub: UUID
    sid: UUID
    jti: UUID
    username: str
    actor_type: OwnerType
    client_id: UUID | None
    scope: str
    roles: tuple[str, ...]
    token_type: str = "api_key"
    iat: int
    exp: int | None
    iss: str
    aud: str
    allowed_networks: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveClientToken:
    """A client token that is accepted now. Fields that are None are absent."""

    active: bool = True
    sub: UUID
    sid: UUID
    jti: str
    username: str
    actor_type: OwnerType = OwnerType.SERVICE
    client_id: UUID
    key_id: UUID
    scope: str
    roles: tuple[str, ...]
    token_type: str = "access"
    iat: int
    exp: int
    iss: str
    aud: str
    allowed_networks: tuple[str, ...] | None


class CredentialIntrospection:
    """Describes tokens and keys. One is active here if and only if the endpoints accept it.

    The caller must compare the client's address with the networks of the key itself.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        of_users: Introspection,
        token_status: TokenStatus,
        keys: KeyAuthentication,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._of_users = of_users
        self._token_status = token_status
        self._keys = keys

    def inspect(self, text: str) -> ActiveToken | ActiveKey | ActiveClientToken | None:
        """Return the description of an active credential, or None for any other text."""
        try:
            if looks_like_key(text):
                return self._key(self._keys.require_live(self._keys.reference(text)))
            claims = self._token_status.verify_either(text)
            if isinstance(claims, AccessClaims) and claims.client is not None:
                return self._client_token(
                    claims, self._keys.require_live(self._keys.reference_of(claims))
                )
        except TokenRefused:
            return None
        return self._of_users.inspect(text)

    def _key(self, live: LiveKey) -> ActiveKey:
        is_service = live.owner_type is OwnerType.SERVICE
        # Until a required password change, the user has no permissions here or elsewhere.
        permissions = () if live.must_change_password else self._keys.permissions_of(live)
        return ActiveKey(
            sub=live.owner_id,
            sid=live.key_id,
            jti=live.key_id,
            username=live.owner_name,
            actor_type=live.owner_type,
            client_id=live.owner_id if is_service else None,
            scope=" ".join(permissions),
            roles=() if live.must_change_password else live.roles,
            iat=int(live.created_at.timestamp()),
            exp=None if live.expires_at is None else int(live.expires_at.timestamp()),
            iss=self._issuer,
            aud=self._audience,
            allowed_networks=live.allowed_networks,
        )

    def _client_token(self, claims: AccessClaims, live: LiveKey) -> ActiveClientToken:
        return ActiveClientToken(
            sub=live.owner_id,
            sid=live.key_id,
            jti=claims.jti,
            username=live.owner_name,
            client_id=live.owner_id,
            key_id=live.key_id,
            scope=" ".join(self._keys.permissions_of(live)),
            roles=live.roles,
            iat=claims.issued_at,
            exp=claims.expires_at,
            iss=self._issuer,
            aud=self._audience,
            allowed_networks=live.allowed_networks,
        )
