"""Errors that concern a whole import."""

from userapi.errors import Conflict, Malformed, NotFound


class MalformedFile(Malformed):
    """The file cannot be read as a whole."""

    code = "malformed_file"
    title = "The file cannot be read."


class ImportNotFound(NotFound):
    """No import has this id."""

    title = "This import does not exist."


class CheckedRowsGone(Conflict):
    """The rows of a dry run were imported already, or are no longer stored."""

    code = "checked_rows_gone"
    title = (
        "The rows of this check were imported already, or were deleted an hour after the check. "
        "Choose the file again."
    )
