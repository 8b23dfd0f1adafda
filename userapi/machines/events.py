"""The events about service accounts and API keys. They never contain a key."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from userapi.clock import rfc3339
from userapi.events.catalogue import EventType
from userapi.machines.views import AccountFacts, KeyView


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccountEvent:
    """An event about a service account. `changed` names the fields of an update."""

    type: EventType
    account: AccountFacts
    changed: Sequence[str] = ()
    reason: str | None = None

    @property
    def subject(self) -> str:
        """Return the account's id."""
        return str(self.account.id)

    def data(self) -> dict[str, Any]:
        """Return the account's facts, what changed, and why."""
        data = _facts(self.account) | {"name": self.account.name, "status": self.account.status}
        if self.changed:
            data["changed"] = list(self.changed)
        if self.reason:
            data["reason"] = self.reason
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyEvent:
    """An event about an API key, and why it happened."""

    type: EventType
    key: KeyView
    owner: AccountFacts
    reason: str | None = None

    @property
    def subject(self) -> str:
        """Return the owner's id, so that events of keys keep their order with the owner's."""
        return str(self.owner.id)

    def data(self) -> dict[str, Any]:
        """Return the key, its owner and its end."""
        key = self.key
        data = _facts(self.owner) | {
            "name": key.name,
            "key_id": str(key.id),
            "status": str(key.status),
            "expires_at": None if key.expires_at is None else rfc3339(key.expires_at),
        }
        if self.reason:
            data["reason"] = self.reason
        if key.replaced_by is not None:
            data["replaced_by"] = str(key.replaced_by)
        return data


def _facts(owner: AccountFacts) -> dict[str, Any]:
    return {
        "owner_type": str(owner.owner_type),
        "owner_id": str(owner.id),
        "roles": sorted(owner.roles),
    }
