"""The texts of problems and of hints about passwords in the language of the viewer.

The API sends its errors in English. Their titles, and the messages of validators, are in the
catalogues: `make messages` finds them in the code.
"""

import re
from typing import Any

import orjson
from flask_babel import gettext
from werkzeug.wrappers import Response

from .blueprint import blp

_NUMBER = re.compile(r"\d+")


def N_(text: str) -> str:  # noqa: N802 - the name by which Babel finds texts
    """Return a text unchanged, and have it in the catalogues."""
    return text


# Messages of the library that checks forms.
LIBRARY_MESSAGES = (
    N_("Missing data for required field."),
    N_("Unknown field."),
    N_("Field may not be null."),
    N_("Invalid input type."),
    N_("Not a valid integer."),
    N_("Not a valid UUID."),
    N_("Not a valid email address."),
)

# States of users, of components, of jobs, and of rows of the audit log.
STATES = (
    N_("active"),
    N_("pending"),
    N_("suspended"),
    N_("locked"),
    N_("healthy"),
    N_("unhealthy"),
    N_("ready"),
    N_("degraded"),
    N_("not_ready"),
    N_("up"),
    N_("down"),
    N_("disabled"),
    N_("expired"),
    N_("revoked"),
    N_("unknown"),
    N_("success"),
    N_("denied"),
    N_("failure"),
    N_("queued"),
    N_("running"),
    N_("done"),
    N_("failed"),
    N_("cancelled"),
)

# Descriptions of the built-in roles.
ROLES = (
    N_("Signs in and looks after their own account."),
    N_("Reads users, suspends and unlocks them."),
    N_("Administers users, sessions and roles."),
    N_("May do everything."),
)

# Hints of zxcvbn about a password.
PASSWORD_HINTS = (
    N_("Straight rows of keys are easy to guess."),
    N_("Short keyboard patterns are easy to guess."),
    N_('Repeats like "aaa" are easy to guess.'),
    N_('Repeats like "abcabcabc" are only slightly harder to guess than "abc".'),
    N_("This is a top-10 common password."),
    N_("This is a top-100 common password."),
    N_("This is a very common password."),
    N_("This is similar to a commonly used password."),
    N_("Sequences like abc or 6543 are easy to guess."),
    N_("Recent years are easy to guess."),
    N_("A word by itself is easy to guess."),
    N_("Dates are often easy to guess."),
    N_("Names and surnames by themselves are easy to guess."),
    N_("Common names and surnames are easy to guess."),
    N_("Use a few words, avoid common phrases."),
    N_("No need for symbols, digits, or uppercase letters."),
    N_("Add another word or two. Uncommon words are better."),
    N_("Capitalization doesn't help very much."),
    N_("All-uppercase is almost as easy to guess as all-lowercase."),
    N_("Reversed words aren't much harder to guess."),
    N_("Predictable substitutions like '@' instead of 'a' don't help very much."),
    N_("Use a longer keyboard pattern with more turns."),
    N_("Avoid repeated words and characters."),
    N_("Avoid sequences."),
    N_("Avoid recent years."),
    N_("Avoid years that are associated with you."),
    N_("Avoid dates and years that are associated with you."),
)


def translated_problem(response: Response) -> dict[str, Any]:
    """Return a problem document with its texts in the language of the viewer."""
    problem: dict[str, Any] = orjson.loads(response.get_data())
    for name in ("title", "detail"):
        problem[name] = translated(problem[name])
    for item in problem.get("errors", ()):
        text = item["message"]
        item["message"] = translated(text)
    return problem


@blp.app_template_filter("translated")
def translated(text: str) -> str:
    """Return an error or a hint in the language of the viewer; unchanged if it has none.

    A text with one number is in the catalogue with a placeholder for it.
    """
    if not text:
        return ""  # In a catalogue, the empty text is the header.
    numbers = _NUMBER.findall(text)
    if len(numbers) == 1:
        template = _NUMBER.sub("%(number)s", text)
        found = gettext(template)
        if found != template:
            return str(found).replace("%(number)s", numbers[0])
    return str(gettext(text))
