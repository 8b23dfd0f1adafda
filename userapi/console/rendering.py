"""Pages from templates: what all templates use, static files, and redirects with messages."""

import hashlib
import json
import re
import zlib
from datetime import date, datetime
from functools import cache, lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import flash, redirect, render_template, request, url_for
from flask_babel import gettext
from flask_wtf.csrf import generate_csrf
from markupsafe import Markup
from werkzeug.wrappers import Response

from userapi.api.context import request_state, services
from userapi.factors.listing import FEW_RECOVERY_CODES

from .blueprint import blp
from .languages import language_choices, own_preferences, time_zone_choices, viewer

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
ASSET_SECONDS = 365 * 86_400
# The addresses that are cached. A page of users has hundreds of icons.
MAX_ASSETS = 1024
# The classes `tint-0` to `tint-7` of console.css.
TINTS = 8


def page(template: str, status: int = 200, **values: Any) -> Response:
    """Return a page, or the part of it that a script requests."""
    part = request.headers.get("HX-Target") if "HX-Request" in request.headers else None
    text = render_template(f"console/{template}", part=part, **values)
    return Response(text, status, mimetype="text/html")


def flash_success(message: str, endpoint: str, **values: Any) -> Response:
    """Redirect to a page that shows a message about what was done."""
    flash(message, "success")
    return redirect_to(endpoint, **values)


def redirect_to(endpoint: str, **values: Any) -> Response:
    """Redirect to a page with GET, so that a reload repeats nothing."""
    return redirect(url_for(f"console.{endpoint}", **values), HTTPStatus.SEE_OTHER)


@blp.context_processor
def _shared_values() -> dict[str, Any]:
    state = request_state()
    actor, live = state.actor, state.live_session
    return {
        "actor": actor if actor.id else None,
        "csrf_field": _csrf_field,
        "asset": asset,
        "can": lambda permission: permission in actor.permissions,
        "settings": services().settings,
        "viewer": viewer(),
        "own_time_zone": own_preferences()[1],
        "language_choices": language_choices,
        "time_zone_choices": time_zone_choices,
        "password_change_pending": live is not None and live.must_change_password,
        "few_recovery_codes": _few_recovery_codes,
    }


def _few_recovery_codes() -> int | None:
    """Return how many recovery codes are left, if that is so few that every page says it."""
    live = request_state().live_session
    if live is None or not live.mfa_enabled:
        return None
    left = services().factor_list.recovery_codes_left(live.user_id)
    return left if left <= FEW_RECOVERY_CODES else None


def _csrf_field() -> Markup:
    """Return the hidden field that every form with a POST needs."""
    return Markup('<input type="hidden" name="csrf_token" value="{}">').format(generate_csrf())


@blp.app_template_global("icon")
def icon(name: str) -> Markup:
    """Return one of Tabler's icons in the colour and the size of its surroundings.

    `python scripts/vendor_tabler.py` adds the icons in use to the file of all icons.
    """
    return _icon(request.script_root, name)


@lru_cache(maxsize=MAX_ASSETS)
def _icon(_script_root: str, name: str) -> Markup:
    return Markup('<svg class="icon" aria-hidden="true"><use href="{}#{}"/></svg>').format(
        asset("icons.svg"), name
    )


@blp.app_template_filter("json_text")
def json_text(value: object) -> str:
    """Return a value as JSON for people: indented, and with letters of every language."""
    return json.dumps(value, indent=2, ensure_ascii=False)


@blp.app_template_filter("initials")
def initials(name: str) -> str:
    """Return the first letters of the first and the last word of a name."""
    words = [word for word in re.split(r"[\s._@-]+", name) if word]
    return "".join(word[0] for word in (words[:1] + words[1:][-1:])).upper() or "?"


@blp.app_template_filter("tint")
def tint(name: str) -> int:
    """Return the number of the colour in which the initials of a user are shown."""
    return zlib.crc32(name.encode()) % TINTS


@blp.app_template_filter("own_picture")
def own_picture(address: str | None) -> str | None:
    """Return the address of a picture if this service serves it.

    Another server would learn who looks at which user, and the policy of the pages prevents it.
    """
    own_site = f"{services().settings.public_base_url}/"
    return address if (address or "").startswith(own_site) else None


@blp.app_template_filter("moment")
def moment(value: datetime | str | None) -> str:
    """Return a time in the viewer's zone and language, to the minute."""
    if value is None:
        return str(gettext("never"))
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    reader = viewer()
    text = reader.moment(value, "medium")
    # The page names the zone. UTC is named at the time, too: the viewer may not have chosen it.
    return f"{text} UTC" if reader.zone_name == "UTC" else text


@blp.app_template_filter("day")
def short_day(value: date) -> str:
    """Return month and day, short enough for charts."""
    return viewer().short_day(value)


@blp.app_template_filter("number")
def number(value: int) -> str:
    """Return a number with the separators of the viewer's language."""
    return viewer().number(value)


@blp.app_template_filter("lasting")
def duration(seconds: float) -> str:
    """Return a duration in the largest unit of which it has at least two."""
    return viewer().duration(seconds)


def asset(filename: str) -> str:
    """Return the address of a static file, which contains the hash of its content.

    Browsers can cache each version forever and load a new one after an update.
    """
    return _asset(request.script_root, filename)


@lru_cache(maxsize=MAX_ASSETS)
def _asset(_script_root: str, filename: str) -> str:
    """Return the address, which `url_for` begins with the script root of the request."""
    return url_for("console.static", filename=filename, v=_fingerprint(filename))


@cache
def _fingerprint(filename: str) -> str:
    content = (Path(__file__).parent / "static" / filename).read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


@blp.after_request
def _add_headers(response: Response) -> Response:
    if request.endpoint == "console.static":
        response.headers["Cache-Control"] = _cache_control_of_asset(response)
    response.headers["Content-Security-Policy"] = POLICY
    return response


def _cache_control_of_asset(response: Response) -> str:
    """Return how long browsers may cache a static file; not at all if its hash is another one.

    While replicas are updated one by one, the page of one replica can load its files from another.
    """
    filename = (request.view_args or {}).get("filename", "")
    if response.status_code in (200, 304) and request.args.get("v") == _fingerprint(filename):
        return f"public, max-age={ASSET_SECONDS}, immutable"
    return "no-cache"
