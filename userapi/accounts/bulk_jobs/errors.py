"""Errors of jobs of bulk changes."""

from userapi.errors import Conflict, NotFound


class BulkJobNotFound(NotFound):
    """No bulk change has this id."""

    title = "This bulk change does not exist."


class MatchChanged(Conflict):
    """Other users match the filter than the number that was confirmed."""

    code = "match_changed"

    def __init__(self, count: int) -> None:
        super().__init__(f"The number of users that match has changed to {count}. Confirm again.")
        self.count = count


class TooManyUsers(Conflict):
    """The filter matches more users than one job accepts."""

    code = "too_many_users"

    def __init__(self, limit: int) -> None:
        super().__init__(f"One bulk change accepts at most {limit} users. Add a filter.")


class NobodyMatches(Conflict):
    """No user is left to be changed."""

    code = "no_users"
    title = "No user matches. Nothing was changed."
