"""The texts of problems in the language of the viewer.

The API sends its errors in English. Their titles, and the messages of validators, are in the
catalogues: `make messages` finds them in the code.
"""

import re
from typing import Any

import orjson
from flask_babel import gettext
from werkzeug.wrappers import Response

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


def translated_problem(response: Response) -> dict[str, Any]:
    """Return a problem document with its texts in the language of the viewer."""
    problem: dict[str, Any] = orjson.loads(response.get_data())
    for name in ("title", "detail"):
        problem[name] = translated(problem[name])
    for item in problem.get("errors", ()):
        text = item["message"]
        item["message"] = translated(text)
    return problem


def translated(text: str) -> str:
    """Return a text of an error in the language of the viewer; unchanged if it has none.

    A text with one number is in the catalogue with a placeholder for it.
    """
    numbers = _NUMBER.findall(text)
    if len(numbers) == 1:
        template = _NUMBER.sub("%(number)s", text)
        found = gettext(template)
        if found != template:
            return str(found).replace("%(number)s", numbers[0])
    return str(gettext(text))
