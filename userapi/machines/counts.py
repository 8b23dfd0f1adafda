"""How many service accounts and active API keys there are."""

from datetime import datetime

from sqlalchemy import Connection, func, select

from userapi.infrastructure.database import table_of
from userapi.machines.active_keys import is_active_key, keys
from userapi.machines.models import AccountStatus, OwnerType, ServiceAccount

_accounts = table_of(ServiceAccount)


def count_machines(
    connection: Connection, now: datetime
) -> tuple[dict[AccountStatus, int], dict[OwnerType, int]]:
    """Return the number of service accounts by status, and of active keys by their owners."""
    by_status = dict.fromkeys(AccountStatus, 0)
    query = select(_accounts.c.status, func.count()).group_by(_accounts.c.status)
    for status, count in connection.execute(query):
        by_status[AccountStatus(status)] = count
    active = select(func.count(keys.c.service_account_id), func.count(keys.c.user_id)).where(
        is_active_key(now)
    )
    of_services, of_users = connection.execute(active).one()
    return by_status, {OwnerType.SERVICE: of_services, OwnerType.USER: of_users}


def count_endless_keys(connection: Connection, now: datetime) -> int:
    """Return the number of active keys that never expire."""
    query = select(func.count()).where(is_active_key(now), keys.c.expires_at.is_(None))
    return int(connection.execute(query).scalar_one())
