"""The second factors of a user, as the user and administrators see them."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, exists, select
from sqlalchemy.orm import Session

from userapi.factors.encoding import base64url
from userapi.factors.enforcement import MfaEnforcement
from userapi.factors.methods import FactorType, Method
from userapi.factors.models import Passkey, TotpFactor
from userapi.factors.recovery_codes import unused_codes
from userapi.factors.user_handles import user_handle
from userapi.infrastructure.database import reading, table_of
from userapi.roles.assignment import role_names_of
from userapi.roles.service import Roles

_apps = table_of(TotpFactor)
_passkeys = table_of(Passkey)


# From this number on, the console reminds of new recovery codes on every page.
FEW_RECOVERY_CODES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorView:
    """A second factor of a user."""

    id: UUID
    type: FactorType
    name: str
    created_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PasskeyView(FactorView):
    """A passkey, as administrators see it."""

    backed_up: bool
    transports: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPasskeyView(PasskeyView):
    """A passkey, as its user sees it. Browsers compare the id with those that they store."""

    credential_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebAuthnAccount:
    """What a browser needs to remove passkeys that the account no longer has.

    `user_id` is the user handle (WebAuthn Level 3 §5.4.3).
    """

    rp_id: str
    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MfaView:
    """Two-step sign-in of a user: factors, and the methods that can be used now."""

    enabled: bool
    required: bool
    methods: list[Method]
    factors: list[FactorView]
    recovery_codes_left: int
    webauthn: WebAuthnAccount | None

    @property
    def has_few_recovery_codes(self) -> bool:
        """Return whether so few codes are left that the user should create new ones."""
        return self.recovery_codes_left <= FEW_RECOVERY_CODES


class FactorList:
    """Reads the second factors of users."""

    def __init__(
        self,
        *,
        roles: Roles,
        enforcement: MfaEnforcement,
        readable_key_ids: Collection[str],
        rp_id: str,
        adds_passkeys: bool,
    ) -> None:
        """`rp_id` is empty if the service has an address that passkeys cannot belong to."""
        self._roles = roles
        self._enforcement = enforcement
        self._readable_key_ids = list(readable_key_ids)
        self._rp_id = rp_id
        self._adds_passkeys = adds_passkeys

    def of(self, user_id: UUID, *, own: bool) -> MfaView:
        """Return the factors of a user. `own` adds what only their user may see."""
        graph = self._roles.graph()
        account = self._webauthn_account(user_id) if own else None
        with reading() as connection:
            factors = factors_of(connection, user_id, own=own)
            return MfaView(
                enabled=bool(factors),
                required=self._enforcement.demands(role_names_of(connection, user_id), graph),
                methods=self.methods(connection, user_id),
                factors=factors,
                recovery_codes_left=unused_codes(connection, user_id),
                webauthn=account,
            )

    def methods(self, connection: Connection | Session, user_id: UUID) -> list[Method]:
        """Return the methods that a user can pass the second step with now.

        Without apps whose secrets no key decrypts, and passkeys of another RP ID.
        """
        row = connection.execute(
            select(
                _is_any(
                    _apps.c.user_id == user_id,
                    _apps.c.confirmed_at.is_not(None),
                    _apps.c.key_id.in_(self._readable_key_ids),
                ),
                _is_any(_passkeys.c.user_id == user_id, _passkeys.c.rp_id == self._rp_id),
            )
        ).one()
        can_use = {
            Method.TOTP: row[0],
            Method.PASSKEY: row[1],
            Method.RECOVERY_CODE: unused_codes(connection, user_id) > 0,
        }
        return [method for method, usable in can_use.items() if usable]

    def methods_of(self, user_id: UUID) -> list[Method]:
        """Return the methods that a user can pass the second step with now."""
        with reading() as connection:
            return self.methods(connection, user_id)

    def recovery_codes_left(self, user_id: UUID) -> int:
        """Return how many unused recovery codes a user has."""
        with reading() as connection:
            return unused_codes(connection, user_id)

    def _webauthn_account(self, user_id: UUID) -> WebAuthnAccount | None:
        if not self._adds_passkeys:
            return None
        return WebAuthnAccount(rp_id=self._rp_id, user_id=base64url(user_handle(user_id)))


def factors_of(
    connection: Connection | Session, user_id: UUID, *, own: bool = True
) -> list[FactorView]:
    """Return the confirmed factors of a user, the oldest first."""
    apps = select(_apps).where(_apps.c.user_id == user_id, _apps.c.confirmed_at.is_not(None))
    passkeys = select(_passkeys).where(_passkeys.c.user_id == user_id)
    factors = [app_view(row) for row in connection.execute(apps)]
    factors += [passkey_view(row, own=own) for row in connection.execute(passkeys)]
    return sorted(factors, key=lambda factor: (factor.created_at, factor.id))


def find_factor(connection: Connection | Session, user_id: UUID, id_: UUID) -> FactorView | None:
    """Return a confirmed factor of a user, as the user sees it."""
    return next((f for f in factors_of(connection, user_id) if f.id == id_), None)


def app_view(app: Any) -> FactorView:
    """Return an authenticator app as it is shown; `app` is a row or a `TotpFactor`."""
    return FactorView(**_common(app, FactorType.TOTP))


def passkey_view(passkey: Any, *, own: bool = True) -> FactorView:
    """Return a passkey as it is shown; `passkey` is a row or a `Passkey`."""
    values = _common(passkey, FactorType.PASSKEY)
    values |= {"backed_up": passkey.backed_up, "transports": passkey.transports}
    if not own:
        return PasskeyView(**values)
    return OwnPasskeyView(**values, credential_id=base64url(passkey.credential_id))


def _common(row: Any, type_: FactorType) -> dict[str, Any]:
    return {
        "id": row.id,
        "type": type_,
        "name": row.name,
        "created_at": row.created_at,
        "last_used_at": row.last_used_at,
    }


def _is_any(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(*conditions)
