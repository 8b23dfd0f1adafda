"""The language and the time zone of the viewer of a page.

They come from the profile, otherwise from the browser: `Accept-Language`, and a cookie in which a
script stores the browser's time zone. Without any of them pages are in English and show UTC.
"""

from contextlib import AbstractContextManager
from functools import cache
from gettext import NullTranslations

import orjson
from babel import Locale, UnknownLocaleError
from flask import Flask, g, request, session
from flask_babel import Babel, force_locale, gettext

from userapi.api.context import request_state
from userapi.languages import (
    DOMAIN,
    LANGUAGES,
    TRANSLATIONS,
    Reader,
    locale_of,
    reader_of,
    time_zones,
    translations_of,
)
from userapi.sessions.status import LiveSession

from .blueprint import blp

PREFERENCES = "preferences"
ZONE_COOKIE = "browser_zone"


def init_app(app: Flask) -> None:
    """Translate the texts of templates and code into the language of the viewer."""
    Babel(
        app,
        default_domain=DOMAIN,
        default_translation_directories=str(TRANSLATIONS),
        locale_selector=lambda: str(viewer().locale),
    )
    app.jinja_env.policies["ext.i18n.trimmed"] = True
    # Flask-Babel's own functions look up the locale and its catalogue again for every text.
    app.jinja_env.install_gettext_callables(  # type: ignore[attr-defined]  # of the extension
        gettext=lambda text: _texts().gettext(text),
        ngettext=lambda one, many, count: _texts().ngettext(one, many, count),
        pgettext=lambda context, text: _texts().pgettext(context, text),
        npgettext=lambda context, one, many, count: _texts().npgettext(context, one, many, count),
        newstyle=True,
    )


def _texts() -> NullTranslations:
    """Return the catalogue of the viewer, for templates."""
    reader = viewer()
    stored: tuple[Reader, NullTranslations] | None = g.get("texts")
    if stored is None or stored[0] is not reader:
        stored = g.texts = (reader, translations_of(reader.catalogue))
    return stored[1]


def viewer() -> Reader:
    """Return the viewer of the page of this request."""
    live = request_state().live_session
    stored: tuple[LiveSession | None, Reader] | None = g.get("viewer")
    if stored is None or stored[0] is not live:
        language, zone = own_preferences()
        reader = reader_of(language or _accepted_language(), zone or _browser_zone())
        stored = g.viewer = (live, reader)
    return stored[1]


def in_language_of(tag: str | None) -> AbstractContextManager[None]:
    """Return a block in which texts are in the language of a profile that has just changed."""
    locale = reader_of(tag or _accepted_language(), None).locale
    block: AbstractContextManager[None] = force_locale(str(locale))
    return block


def own_preferences() -> tuple[str | None, str | None]:
    """Return the language tag and the time zone in the profile of the viewer.

    The profile comes with the live session, without a query. That of a locked user does not, and
    neither does a long one: the browser's session has the preferences of the last request that knew
    them.
    """
    live = request_state().live_session
    if live is None:
        return None, None
    if live.profile is not None:
        profile = orjson.loads(live.profile.text)
        known = [profile["locale"], profile["timezone"]]
        if session.get(PREFERENCES) != known:
            session[PREFERENCES] = known
    language, zone = session.get(PREFERENCES, (None, None))
    return language, zone


def browser_preferences() -> dict[str, str]:
    """Return the language tag and the time zone of the browser as fields of a profile.

    A language without a catalogue, and a time zone that is unknown, are omitted.
    """
    locale, zone = locale_of(_accepted_language()), _browser_zone()
    known = {"locale": str(locale).replace("_", "-")} if locale else {}
    return known | ({"timezone": zone} if zone in time_zones() else {})


def _accepted_language() -> str | None:
    """Return the first language of the browser that has a catalogue (RFC 9110 §12.5.4)."""
    accepted = (tag for tag, quality in request.accept_languages if quality > 0)
    return next((tag for tag in accepted if locale_of(tag)), None)


def _browser_zone() -> str | None:
    return request.cookies.get(ZONE_COOKIE)


def language_choices(current: str | None) -> list[tuple[str, str]]:
    """Return the language tags to choose from, with their names, and the current one."""
    tags = [catalogue.replace("_", "-") for catalogue in LANGUAGES]
    if current and current not in tags:
        tags.append(current)
    names = ((tag, locale_of(tag)) for tag in tags)
    named = [(tag, _own_name(locale) if locale else tag) for tag, locale in names]
    return [("", gettext("As in the browser")), *named]


def _own_name(locale: Locale) -> str:
    """Return the name of a language in that language."""
    name = locale.display_name or str(locale)
    return name[0].upper() + name[1:]


@cache
def time_zone_choices() -> list[str]:
    """Return the time zones to choose from. Those of places come first, UTC is the last."""
    places = (name for name in time_zones() if "/" in name and not name.startswith("Etc/"))
    return [*sorted(places), "UTC"]


@blp.app_template_filter("language_name")
def language_name(tag: str) -> str:
    """Return the name of a language in the language of the viewer; the tag if it is unknown."""
    try:
        name = Locale.parse(tag, sep="-").get_display_name(viewer().locale)
    except (ValueError, UnknownLocaleError):
        return tag
    return name or tag
