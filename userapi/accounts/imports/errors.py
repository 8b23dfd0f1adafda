"""Errors that concern a whole import."""

from userapi.errors import Malformed, NotFound


class MalformedFile(Malformed):
    """The file cannot be read as a whole."""

    code = "malformed_file"
    title = "The file cannot be read."


class ImportNotFound(NotFound):
    """No import has this id."""

    title = "This import does not exist."
