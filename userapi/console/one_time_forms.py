"""Forms whose page shows a secret once: a key, or recovery codes.

The page is the response to the form, because the secret is stored nowhere. A browser that loads
this page again sends the form again, which would create another key or make the codes void. Such a
form has a number, and a session accepts each number once.
"""

import secrets
from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import flash, request, session
from flask_babel import gettext
from markupsafe import Markup
from werkzeug.wrappers import Response

from .blueprint import blp
from .rendering import redirect_to

FIELD = "form_number"
_SENT = "sent_forms"
# A reload follows soon; the session must not grow.
MAX_KNOWN = 20


@blp.app_template_global("form_number")
def form_number() -> Markup:
    """Return the hidden field with the number of a new form."""
    return Markup('<input type="hidden" name="{}" value="{}">').format(FIELD, secrets.token_hex(8))


def accepted_once(endpoint: str) -> Callable[[Callable[..., Response]], Callable[..., Response]]:
    """Redirect to a page without any change if the form was sent before.

    Only a form that showed a secret counts: one with errors may be sent again. A page of
    an account is that of the form's account.
    """

    def decorate(view: Callable[..., Response]) -> Callable[..., Response]:
        @wraps(view)
        def once(**values: Any) -> Response:
            number = request.form.get(FIELD, "")
            sent: list[str] = session.get(_SENT, [])
            if number in sent:
                flash(gettext("This form was already sent. Its result is shown only once."), "info")
                kept = {name: values[name] for name in ("account_id",) if name in values}
                return redirect_to(endpoint, **kept)
            response = view(**values)
            if number and response.status_code == 200:
                session[_SENT] = [*sent, number][-MAX_KNOWN:]
            return response

        return once

    return decorate
