"""Lists: their pages by cursors in both directions, and what a browser prefers to see of them."""

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from flask import request
from marshmallow import Schema
from werkzeug.wrappers import Response

from userapi.api.context import services
from userapi.infrastructure.pagination import Page, PageRequest

PAGE_SIZES = (10, 25, 50, 100)
DEFAULT_PAGE_SIZE = 25
# The last row that a link can claim to show; the number is only displayed.
MAX_POSITION = 10**9
PREFERENCE_SECONDS = 365 * 86_400
PAGE_SIZE_COOKIE = "console-page-size"
MAX_FILTER_LENGTH = 320


def requested_page(*, page_size: int, sort: str | None = None) -> PageRequest:
    """Return the part of a list that the URL requests.

    `cursor` requests the rows after it, `before` those before it, `end` the last ones.
    """
    before = request.args.get("before") or None
    return PageRequest(
        page_size=page_size,
        cursor=before or request.args.get("cursor") or None,
        sort=sort,
        backwards=before is not None or "end" in request.args,
    )


def position_of(rows: Page[Any], total: int | None) -> int | None:
    """Return the number of the first row of a page; None if it is unknown."""
    if rows.previous_cursor is None:
        return 1
    if "end" in request.args and "before" not in request.args:
        return None if total is None else total - len(rows.items) + 1
    claimed = request.args.get("at", "")
    if not (claimed.isascii() and claimed.isdecimal()):
        return None
    return min(int(claimed[:10]), MAX_POSITION)


def preferred_page_size() -> int:
    """Return the page size that the URL requests or that this browser prefers."""
    for text in (request.args.get("page_size"), request.cookies.get(PAGE_SIZE_COOKIE)):
        if text is not None and text in map(str, PAGE_SIZES):
            return int(text)
    return DEFAULT_PAGE_SIZE


def carried_in_links(filters: Mapping[str, str], page_size: int) -> dict[str, str]:
    """Return what the links of a list keep: the filters, and the page size of the URL."""
    return {**filters, **({"page_size": str(page_size)} if "page_size" in request.args else {})}


def preferred_columns(cookie: str, known: Collection[str], default: Collection[str]) -> list[str]:
    """Return the columns that this browser prefers, in the order of `known`."""
    stored = request.cookies.get(cookie)
    names = default if stored is None else stored.split(".")
    return [name for name in known if name in names]


def prefer(response: Response, cookie: str, value: str) -> None:
    """Store a preference of this browser."""
    response.set_cookie(
        cookie,
        value,
        max_age=PREFERENCE_SECONDS,
        path="/console/",
        secure=services().settings.is_https,
        httponly=True,
        samesite="Lax",
    )


def filters_in_form(schema: type[Schema], *, exclude: Collection[str] = ()) -> dict[str, str]:
    """Return the filters in the field `filters` of a form, which contains a query string.

    Unknown filters are omitted, and values are cut to the length that any filter can have.
    """
    known = {field.data_key or name for name, field in schema().fields.items()} - set(exclude)
    pairs = parse_qsl(request.form.get("filters", ""))
    return {name: value[:MAX_FILTER_LENGTH] for name, value in pairs if name in known}


def as_query(filters: Mapping[str, str]) -> str:
    """Return filters as a query string, for a field of a form."""
    return urlencode(filters)
