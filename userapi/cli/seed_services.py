"""Service accounts with keys in every state, for `flask seed`."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import insert

from userapi.accounts.models import searchable
from userapi.actor import ActorType
from userapi.audit.actions import AuditAction, Outcome
from userapi.audit.models import AuditLog
from userapi.infrastructure.database import table_of, transaction
from userapi.machines.key_text import generate_key
from userapi.machines.keys import notice_time
from userapi.machines.models import (
    AccountStatus,
    ApiKey,
    OwnerType,
    RevocationReason,
    ServiceAccount,
)
from userapi.roles.models import ServiceAccountRole

# Shows that a key that was found somewhere is a sample.
PREFIX = "seed"
OLDEST_DAYS = 360
YEAR = timedelta(days=365)
TASKS = (
    ("media-worker", "Converts uploads."),
    ("gpu-scheduler", "Assigns jobs to graphics cards."),
    ("job-runner", "Runs what users have queued."),
    ("nightly-export", "Copies figures to the warehouse."),
    ("ci-deploy", "Deploys new releases."),
    ("mail-bridge", "Sends newsletters."),
    ("monitoring", "Checks that everything responds."),
    ("billing", "Reads who used what."),
)


@dataclass(frozen=True, slots=True)
class SampleKey:
    """A key that works, with the client id of its account."""

    client_id: UUID
    text: str


def add_service_accounts(count: int, *, chance: random.Random, now: datetime) -> SampleKey:
    """Insert service accounts, at least one, and return a key of the first."""
    samples = _Samples(chance, now)
    rows = [samples.account(number) for number in range(count)]
    keys = [key for row in rows for key in samples.keys(row)]
    roles = [{"service_account_id": row["id"], "role_name": "moderator"} for row in rows]
    with transaction() as session:
        session.execute(insert(table_of(ServiceAccount)), rows)
        session.execute(insert(table_of(ServiceAccountRole)), roles)
        session.execute(insert(table_of(ApiKey)), [key for key, _ in keys])
        session.execute(insert(table_of(AuditLog)), list(samples.history(rows)))
    return SampleKey(rows[0]["id"], keys[0][1])


class _Samples:
    """Generates the rows of service accounts and their keys."""

    def __init__(self, chance: random.Random, now: datetime) -> None:
        self._chance = chance
        self._now = now
        self._suffix = f"{chance.getrandbits(20):05x}"

    def account(self, number: int) -> dict[str, Any]:
        """Return the row of an account. Every eighth is suspended, but not the first."""
        task, description = TASKS[number % len(TASKS)]
        name = f"{task}-{self._suffix}{number}"
        created = self._now - timedelta(days=OLDEST_DAYS * self._chance.random(), hours=1)
        is_suspended = number % 8 == 7
        return {
            "id": id_at(created, self._chance),
            "name": name,
            "description": description,
            "status": AccountStatus.SUSPENDED if is_suspended else AccountStatus.ACTIVE,
            "status_reason": "No longer needed" if is_suspended else None,
            "attributes": {"team": self._chance.choice(["media", "research", "operations"])},
            "search_text": searchable(name, description),
            "version": 1,
            "access_version": 1,
            "token_version": 1,
            "created_at": created,
            "updated_at": created,
            "created_by": None,
            "last_used_at": self._now - timedelta(minutes=self._chance.randrange(60 * 24 * 20)),
        }

    def keys(self, account: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
        """Yield rows of keys with their texts: one that is used, and some that end or have ended.

        Keys that ended more than 30 days ago are deleted, so these ended later.
        """
        created, used = account["created_at"], account["last_used_at"]
        yield self._key(
            account,
            "production",
            created,
            expires_at=created + YEAR,
            last_used_at=max(used, created),
        )
        if self._chance.random() < 0.5:
            yield self._key(account, "test", created, expires_at=self._now + timedelta(days=3))
        if self._chance.random() < 0.5:
            yield self._key(account, "trial", created, expires_at=self._now - timedelta(minutes=30))
        if self._chance.random() < 0.5:
            revoked = {"revoked_at": self._now, "revoked_reason": RevocationReason.LEAKED}
            yield self._key(account, "old", created, expires_at=None, **revoked)

    def history(self, accounts: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the audit rows about the creation of accounts."""
        for account in accounts:
            yield {
                "id": id_at(account["created_at"], self._chance),
                "occurred_at": account["created_at"],
                "action": AuditAction.SERVICE_ACCOUNT_CREATED,
                "outcome": Outcome.SUCCESS,
                "actor_id": None,
                "actor_username": "cli",
                "actor_type": ActorType.SYSTEM,
                "target_type": "service_account",
                "target_id": str(account["id"]),
                "correlation_id": f"seed-{self._chance.getrandbits(64):016x}",
                "details": {"name": account["name"], "roles": ["moderator"]},
            }

    def _key(
        self,
        account: dict[str, Any],
        name: str,
        created: datetime,
        *,
        expires_at: datetime | None,
        **more: Any,
    ) -> tuple[dict[str, Any], str]:
        key_id = id_at(created, self._chance)
        generated = generate_key(PREFIX, OwnerType.SERVICE, key_id)
        notice = notice_time(created, expires_at)
        row = {
            "id": key_id,
            "service_account_id": account["id"],
            "name": name,
            "key_hash": generated.digest,
            "hint": generated.hint,
            "version": 1,
            "created_at": created,
            "expires_at": expires_at,
            "notify_at": notice if notice is not None and notice > self._now else None,
            "last_used_at": None,
            "last_used_ip": None,
            "revoked_at": None,
            "revoked_reason": None,
            **more,
        }
        return row, generated.text


def id_at(moment: datetime, chance: random.Random) -> UUID:
    """Return a UUIDv7 of that moment (RFC 9562 §5.7), so that order by id is order by age."""
    milliseconds = int(moment.timestamp() * 1000)
    value = milliseconds << 80 | 7 << 76 | chance.getrandbits(12) << 64
    return UUID(int=value | 2 << 62 | chance.getrandbits(62))
