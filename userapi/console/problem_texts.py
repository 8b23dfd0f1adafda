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

# What is wrong with a text of JSON.
JSON_MESSAGES = (
    N_("A number is out of range."),
    N_("An object has two members of the same name."),
    N_("NaN is not a JSON value."),
    N_("Infinity is not a JSON value."),
    N_("-Infinity is not a JSON value."),
    N_("The JSON is nested too deeply."),
)

# What is wrong with an e-mail address, as the library that checks it says it.
EMAIL_MESSAGES = (
    N_("An email address must have an @-sign."),
    N_("There must be something before the @-sign."),
    N_("There must be something after the @-sign."),
    N_("There can't be anything after the email address."),
    N_("The part after the @-sign is not valid. It should have a period."),
    N_("The part after the @-sign is not valid. It is not within a valid top-level domain."),
    N_(
        "The part after the @-sign is a special-use or reserved name that cannot be used with"
        " email."
    ),
    N_("An email address cannot end with a period."),
    N_("An email address cannot start with a period."),
    N_("An email address cannot have a period immediately before the @-sign."),
    N_("An email address cannot have a period immediately after the @-sign."),
    N_("An email address cannot have a hyphen immediately after the @-sign."),
    N_("An email address cannot end with a hyphen."),
    N_("An email address cannot have two periods in a row."),
    N_("An email address cannot have a period and a hyphen next to each other."),
)

# Rows of a file that are refused before their fields are read.
ROW_MESSAGES = (
    N_("The line is too long."),
    N_("Is not valid JSON."),
    N_("Must be a JSON object."),
)

# Errors that contain values: names, states, or several numbers. The more exact ones come first.
TEMPLATES = (
    N_("An account that is %(status)s cannot become %(new_status)s."),
    N_("The service account is %(status)s already."),
    N_("The number of users that match has changed to %(count)s. Confirm again."),
    N_("One bulk change accepts at most %(count)s users. Add a filter."),
    N_("This needs the permission %(permission)s."),
    N_("The role %(name)s inherits from this role."),
    N_("There is no role %(name)s."),
    N_("The file is not valid CSV: %(reason)s (header)."),
    N_("The file is not valid CSV: %(reason)s (line %(line)s)."),
    N_("The file is not in the encoding %(encoding)s, which was stated for it."),
    N_("The header has %(count)s columns. At most %(limit)s are accepted."),
    N_("The column %(name)s is missing."),
    N_("Column %(column)s has no name."),
    N_("Column %(column)s, %(name)s, is unknown. Known columns: %(known)s."),
    N_("Column %(column)s repeats column %(first)s, %(name)s."),
    N_("The row has %(count)s cells, but the header has %(columns)s columns."),
    N_("Must be a time such as %(example)s (RFC 3339)."),
    N_("Must be one of %(names)s."),
    N_("Must be a number from %(minimum)s to %(maximum)s."),
    N_("Must contain 1 to %(limit)s networks."),
    N_("Must be at most %(days)s days from now."),
    N_("The email address contains invalid characters before the @-sign: %(characters)s."),
    N_("The email address contains unsafe characters: %(characters)s."),
    N_("The part after the @-sign contains invalid characters: %(characters)s."),
    N_("The email address is too long after the @-sign (%(reason)s)."),
    N_("After the @-sign, periods cannot be separated by so many characters (%(reason)s)."),
    N_("Invalid JSON at line %(line)s, column %(column)s."),
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

_PLACEHOLDER = re.compile(r"%\((\w+)\)s")
_FORMS = {
    template: re.compile("(.+)".join(map(re.escape, _PLACEHOLDER.split(template)[::2])), re.DOTALL)
    for template in TEMPLATES
}


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
    found = str(gettext(text))
    return _with_values(text) if found == text else found


def _with_values(text: str) -> str:
    """Return a text with values in the language of the viewer. States are translated as well."""
    for template, form in _FORMS.items():
        match = form.fullmatch(text)
        if match:
            names = _PLACEHOLDER.findall(template)
            values = (gettext(value) if value in STATES else value for value in match.groups())
            return str(gettext(template, **dict(zip(names, values, strict=True))))
    return text
