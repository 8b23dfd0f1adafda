"""The colour scheme of the pages: light, dark, or that of the browser."""

from enum import StrEnum

from flask import current_app, request
from werkzeug.utils import redirect
from werkzeug.wrappers import Response

from userapi.errors import invalid_field

from .access import public
from .blueprint import blp
from .onward import path_in_console
from .rendering import redirect_to

COOKIE_SECONDS = 365 * 86_400


class Theme(StrEnum):
    """The colour schemes. The names are values of `data-bs-theme`, by which Tabler chooses."""

    DARK = "dark"
    LIGHT = "light"
    SYSTEM = "system"


@blp.route("/theme", methods=["POST"])
@public
def choose_theme() -> Response:
    """Store the chosen colour scheme in this browser, and return to the page."""
    try:
        theme = Theme(request.form.get("theme", ""))
    except ValueError:
        raise invalid_field("theme", "Must be light, dark or system.") from None
    onward = path_in_console(request.form.get("onward"))
    response = redirect(onward, 303) if onward else redirect_to("home")
    response.set_cookie(
        _cookie_name(),
        theme,
        max_age=COOKIE_SECONDS,
        secure=current_app.config["SESSION_COOKIE_SECURE"],
        httponly=True,
        samesite="Lax",
    )
    return response


@blp.context_processor
def _chosen_theme() -> dict[str, str]:
    chosen = request.cookies.get(_cookie_name())
    return {"theme": chosen if chosen in tuple(Theme) else Theme.SYSTEM}


def _cookie_name() -> str:
    return f"{current_app.config['SESSION_COOKIE_NAME']}-theme"
