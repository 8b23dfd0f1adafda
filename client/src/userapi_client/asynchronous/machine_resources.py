"""Service accounts and API keys."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from userapi_client import requests
from userapi_client.asynchronous.resource import AsyncCollection, AsyncResource, AsyncSender
from userapi_client.machine_models import CreatedKey, Key, ServiceAccount
from userapi_client.models import AuditEntry, ExplainedPermission
from userapi_client.page import Page, read_page


class AsyncServiceAccountsApi(AsyncCollection[ServiceAccount]):
    """The accounts of programs."""

    def __init__(self, sender: AsyncSender) -> None:
        super().__init__(sender, path="/service-accounts/", read=ServiceAccount.read)

    async def suspend(self, id: str, *, reason: str | None = None) -> ServiceAccount:
        """Suspend an account; its keys and tokens stop working."""
        body = requests.given({"reason": reason})
        return await self._one("POST", self._path_of(id, "suspend"), json=body)

    async def activate(self, id: str, *, reason: str | None = None) -> ServiceAccount:
        """Activate a suspended account; its keys work again."""
        body = requests.given({"reason": reason})
        return await self._one("POST", self._path_of(id, "activate"), json=body)

    async def permissions(self, id: str) -> tuple[ExplainedPermission, ...]:
        """Return the permissions of an account, each with the roles that grant it."""
        answer = await self._value("GET", self._path_of(id, "permissions"))
        return read_page(answer, ExplainedPermission.read).items

    async def activity(self, id: str, **filters: Any) -> AsyncIterator[AuditEntry]:
        """Iterate over the audit entries of an account, newest first."""
        async for entry in self._each(self._path_of(id, "activity"), AuditEntry.read, filters):
            yield entry


class AsyncApiKeysApi(AsyncResource):
    """The API keys of the caller, or of the service account that `service_account` names."""

    async def page(
        self, *, service_account: str | None = None, user: str | None = None, **filters: Any
    ) -> Page[Key]:
        """Return the keys, newest first: the list has no pages. `user` is for administrators."""
        return await self._page(_path(service_account, user), Key.read, filters)

    async def iter(
        self, *, service_account: str | None = None, user: str | None = None, **filters: Any
    ) -> AsyncIterator[Key]:
        """Iterate over the keys, newest first."""
        page = await self.page(service_account=service_account, user=user, **filters)
        for key in page.items:
            yield key

    async def get(self, id: str, *, service_account: str | None = None) -> Key:
        """Return one key, without its text."""
        return Key.read(await self._value("GET", _path(service_account) + requests.segment(id)))

    async def create(
        self,
        *,
        service_account: str | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> CreatedKey:
        """Create a key, once even if a response is lost. Only the result has its text, `key`."""
        answer = await self._value(
            "POST",
            _path(service_account),
            json=fields,
            idempotency_key=idempotency_key or requests.new_idempotency_key(),
        )
        return CreatedKey.read(answer)

    async def update(self, id: str, *, service_account: str | None = None, **fields: Any) -> Key:
        """Change the name, the permissions or the networks of a key."""
        path = _path(service_account) + requests.segment(id)
        return Key.read(await self._value("PATCH", path, json=fields))

    async def change(
        self, id: str, fn: Callable[[Key], dict[str, Any]], *, service_account: str | None = None
    ) -> Key:
        """Change the fields that `fn` returns for the current state. Keys have no versions."""
        found = await self.get(id, service_account=service_account)
        return await self.update(id, service_account=service_account, **fn(found))

    async def rotate(
        self,
        id: str,
        *,
        service_account: str | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> CreatedKey:
        """Replace a key. The old one works for `overlap_seconds` longer (a day)."""
        answer = await self._value(
            "POST",
            f"{_path(service_account)}{requests.segment(id)}/rotate",
            json=fields,
            idempotency_key=idempotency_key or requests.new_idempotency_key(),
        )
        return CreatedKey.read(answer)

    async def delete(
        self, id: str, *, service_account: str | None = None, user: str | None = None
    ) -> None:
        """Revoke a key."""
        await self._done("DELETE", _path(service_account, user) + requests.segment(id))

    async def delete_all(
        self, *, service_account: str | None = None, user: str | None = None
    ) -> int:
        """Revoke all keys; return how many."""
        answer = await self._value("DELETE", _path(service_account, user))
        return int(answer["revoked"]) if isinstance(answer, dict) and "revoked" in answer else 0


def _path(service_account: str | None, user: str | None = None) -> str:
    if service_account is not None:
        return f"/service-accounts/{requests.segment(service_account)}/api-keys/"
    return f"/users/{'me' if user is None else requests.segment(user)}/api-keys/"
