"""What all resources of the REST API have in common."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import httpx2

from userapi_client import requests
from userapi_client.errors import Stale, Unavailable
from userapi_client.model_base import Model
from userapi_client.page import Page, read_page
from userapi_client.replies import json_of

T = TypeVar("T", bound=Model)
Item = TypeVar("Item")

CHANGE_TRIES = 4
ITERATED_PAGE_SIZE = 100


class AsyncSender(Protocol):
    """Sends a request with credentials. Raises UserApiError for every response that is an error."""

    async def send(self, call: requests.Call) -> httpx2.Response:
        """Return a response with a status below 400."""


class AsyncResource:
    """A part of the API."""

    def __init__(self, sender: AsyncSender) -> None:
        self._sender = sender

    async def _value(self, method: str, path: str, **options: Any) -> Any:
        return json_of(await self._sender.send(requests.call(method, path, **options)))

    async def _done(self, method: str, path: str, **options: Any) -> None:
        await self._sender.send(requests.call(method, path, **options))

    async def _page(
        self, path: str, read: Callable[[Any], Item], filters: Mapping[str, Any]
    ) -> Page[Item]:
        return read_page(await self._value("GET", path, params=filters), read)

    async def _each(
        self, path: str, read: Callable[[Any], Item], filters: Mapping[str, Any]
    ) -> AsyncIterator[Item]:
        """Follow the cursors of a list. Rows may be added meanwhile."""
        query = {"page_size": ITERATED_PAGE_SIZE, **filters}
        while True:
            page = await self._page(path, read, query)
            for item in page.items:
                yield item
            if page.next_cursor is None:
                return
            if page.next_cursor == query.get("cursor"):
                raise Unavailable(detail="The list is invalid: its cursor repeats.")
            query["cursor"] = page.next_cursor


class AsyncCollection(AsyncResource, Generic[T]):
    """A list of objects with ids."""

    def __init__(
        self, sender: AsyncSender, *, path: str, read: Callable[[Any, str | None], T]
    ) -> None:
        super().__init__(sender)
        self._path = path
        self._read = read

    async def page(self, **filters: Any) -> Page[T]:
        """Return one page of the objects that match the filters."""
        return await self._page(self._path, self._item, filters)

    async def iter(self, **filters: Any) -> AsyncIterator[T]:
        """Iterate over all objects that match the filters, page by page."""
        async for item in self._each(self._path, self._item, filters):
            yield item

    async def get(self, id: str) -> T:
        """Return one object with its `etag`."""
        return await self._one("GET", self._path_of(id))

    async def create(self, *, idempotency_key: str | None = None, **fields: Any) -> T:
        """Create one object, exactly once even if a response is lost."""
        key = idempotency_key or requests.new_idempotency_key()
        return await self._one("POST", self._path, json=fields, idempotency_key=key)

    async def update(self, id: str, *, if_match: str | None = None, **fields: Any) -> T:
        """Change these fields. With `if_match`, raises Stale if the object has another version."""
        return await self._one("PATCH", self._path_of(id), json=fields, if_match=if_match)

    async def change(self, id: str, fn: Callable[[T], dict[str, Any]]) -> T:
        """Change the fields of an object that `fn` returns for its current state.

        If the object was changed concurrently, `fn` is called again, up to four times; then Stale
        is raised.
        """
        tries = CHANGE_TRIES
        found = await self.get(id)
        while True:
            fields = fn(found)
            try:
                return await self.update(id, if_match=found.etag, **fields)
            except Stale as exc:
                tries -= 1
                if not tries:
                    raise
                may_be_done = exc.may_be_own
            found = await self.get(id)
            # The response to an earlier attempt was lost, and its change was made.
            if may_be_done and requests.holds(found.raw, fields):
                return found

    async def delete(self, id: str) -> None:
        """Delete the object."""
        await self._done("DELETE", self._path_of(id))

    async def _one(self, method: str, path: str, **options: Any) -> T:
        response = await self._sender.send(requests.call(method, path, **options))
        return self._read(json_of(response), response.headers.get("ETag"))

    def _item(self, value: Any) -> T:
        return self._read(value, None)

    def _path_of(self, id: str, *more: str) -> str:
        return "/".join([self._path.rstrip("/"), requests.segment(id), *more])
