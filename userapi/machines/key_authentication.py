"""Authentication by API keys and client tokens: one check for every endpoint that accepts them."""

from collections.abc import Callable
from uuid import UUID

from userapi.authentication.token_claims import AccessClaims
from userapi.machines.errors import KeyMalformed, NetworkNotAllowed
from userapi.machines.key_text import parse_key
from userapi.machines.models import OwnerType
from userapi.machines.networks import is_allowed
from userapi.machines.status import KeyLookup, KeyReference, LiveKey, LiveKeys
from userapi.permissions import PermissionSet
from userapi.roles.service import Roles


class KeyAuthentication:
    """Converts the credential of a request into a live key, and returns its permissions."""

    def __init__(self, *, live: LiveKeys, roles: Roles, count: Callable[[str], None]) -> None:
        """`count` receives the outcome of each check: `accepted`, or the code of the refusal."""
        self._live = live
        self._roles = roles
        self.count = count

    def reference(self, text: str) -> KeyReference:
        """Return the reference of a key. Raises KeyMalformed for a wrong form or checksum."""
        parsed = parse_key(text)
        if parsed is None:
            raise KeyMalformed()
        return KeyReference(parsed.key_id, parsed.owner_type, key=parsed)

    def reference_of(self, claims: AccessClaims) -> KeyReference:
        """Return the reference of a client token, whose claims were verified."""
        return KeyReference(claims.session_id, OwnerType.SERVICE, claims=claims)

    def lookup_for(self, owner_id: UUID, reference: KeyReference) -> KeyLookup | None:
        """Return how to look up a key in Redis that is known to be of this owner."""
        return self._live.lookup_for(owner_id, reference)

    def require_live(self, reference: KeyReference, *, reply: object = None) -> LiveKey:
        """Return the live key. Raises TokenInvalid, TokenRevoked, TokenExpired.

        `reply` is that of Redis, if the caller has looked the key up there already.
        """
        return self._live.find(reference, reply=reply)

    def require_network(self, live: LiveKey, address: str | None) -> None:
        """Raise NetworkNotAllowed unless the key can be used from the address."""
        if not is_allowed(address, live.allowed_networks):
            raise NetworkNotAllowed()

    def permissions_of(self, live: LiveKey) -> PermissionSet:
        """Return the current permissions of the key."""
        return live.effective(self._roles.graph(live.catalogue_version))
