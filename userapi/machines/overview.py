"""What needs attention among service accounts: keys that expire soon or were never used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select

from userapi.clock import Clock
from userapi.infrastructure.database import reading
from userapi.machines.active_keys import KeyAttention, is_active_key, keys, needs
from userapi.machines.models import AccountStatus
from userapi.machines.views import accounts

NAMED_KEYS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiringKey:
    """An active key of a service account that expires soon."""

    name: str
    account_id: UUID
    account_name: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFigures:
    """Numbers of service accounts and of their active keys.

    `accounts_needing` counts, for each reason, the accounts with a key that needs attention: as
    many as the list of service accounts has under that filter. `next_to_expire` are the first five
    keys that expire.
    """

    active_accounts: int
    suspended_accounts: int
    active_keys: int
    accounts_needing: Mapping[KeyAttention, int]
    next_to_expire: Sequence[ExpiringKey]


class MachineOverview:
    """Counts service accounts and their keys."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def figures(self) -> MachineFigures:
        """Return the current numbers."""
        now = self._clock.now()
        of_services = (is_active_key(now), keys.c.service_account_id.is_not(None))
        is_active = accounts.c.status == AccountStatus.ACTIVE
        of_accounts = select(func.count(), func.count().filter(is_active)).select_from(accounts)
        owners = func.count(keys.c.service_account_id.distinct())
        of_keys = select(
            func.count(), *(owners.filter(needs(each, now)) for each in KeyAttention)
        ).where(*of_services)
        first = (
            select(
                keys.c.name,
                accounts.c.id.label("account_id"),
                accounts.c.name.label("account_name"),
                keys.c.expires_at,
            )
            .join(accounts, accounts.c.id == keys.c.service_account_id)
            .where(*of_services, needs(KeyAttention.EXPIRING, now))
            .order_by(keys.c.expires_at, keys.c.id)
            .limit(NAMED_KEYS)
        )
        with reading() as connection:
            all_accounts, active_accounts = connection.execute(of_accounts).one()
            active, *needing = connection.execute(of_keys).one()
            accounts_needing = dict(zip(KeyAttention, needing, strict=True))
            is_empty = not accounts_needing[KeyAttention.EXPIRING]
            named = [] if is_empty else connection.execute(first).mappings().all()
        return MachineFigures(
            active_accounts=active_accounts,
            suspended_accounts=all_accounts - active_accounts,
            active_keys=active,
            accounts_needing=accounts_needing,
            next_to_expire=[ExpiringKey(**row) for row in named],
        )
