"""Ending every session of every user: after a stolen backup, a leaked secret, a restored database.

In batches, each a transaction of its own: memory stays constant, users are locked for a moment
only, and a run that was interrupted can be repeated for the rest.
"""

import random
import time
from collections.abc import Callable
from uuid import UUID

import structlog
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from userapi.accounts.models import User
from userapi.accounts.views import ALL_USERS, user_view
from userapi.actor import Actor
from userapi.clock import Clock
from userapi.infrastructure.database import table_of, transaction
from userapi.sessions.service import EndReason, Sessions

log = structlog.get_logger(__name__)

USERS_AT_ONCE = 500
SESSIONS_AT_ONCE = 1000
TRIES = 5

users = table_of(User)


class LogOutEveryone:
    """Ends all sessions, with all that the end of a session means."""

    def __init__(self, *, clock: Clock, sessions: Sessions) -> None:
        self._clock = clock
        self._sessions = sessions

    def end_all(self, *, actor: Actor, progress: Callable[[int], object] = lambda n: None) -> int:
        """End every session that was live when this began, and return how many ended.

        `progress` receives the number of each batch. Who signs in meanwhile stays signed in, if
        their turn is over.
        """
        ended, after = 0, None
        while batch := self._next_users(after):
            count = self._end_of(batch, actor=actor)
            ended += count
            progress(count)
            after = batch[-1]
        log.warning("sessions.all_revoked", count=ended)
        return ended

    def _next_users(self, after: UUID | None) -> list[UUID]:
        """Return so many users that their sessions make one batch, but at least one user."""
        chosen: list[UUID] = []
        total = 0
        for user_id, count in self._sessions.users_with_live_sessions(
            after=after, limit=USERS_AT_ONCE
        ):
            total += count
            if chosen and total > SESSIONS_AT_ONCE:
                break
            chosen.append(user_id)
        return chosen

    def _end_of(self, user_ids: list[UUID], *, actor: Actor) -> int:
        """End the sessions of these users; a batch that meets a lock is tried again."""
        attempt = 1
        while True:
            try:
                return self._end_at_once(user_ids, actor=actor)
            except OperationalError as exc:
                # A user whose row somebody holds for long, or a deadlock: the batch is as it was.
                if attempt == TRIES:
                    raise
                log.warning("sessions.batch_repeated", error=type(exc.orig).__name__)
                time.sleep(random.uniform(0.1, 0.5) * attempt)  # nosec B311
                attempt += 1

    def _end_at_once(self, user_ids: list[UUID], *, actor: Actor) -> int:
        with transaction() as session:
            # The users first, in the order of their ids: whoever starts a session waits here.
            session.execute(
                select(users.c.id)
                .where(users.c.id.in_(user_ids))
                .order_by(users.c.id)
                .with_for_update()
            )
            now = self._clock.now()
            rows = session.execute(ALL_USERS.where(users.c.id.in_(user_ids))).all()
            owners = {view.id: view.facts for view in (user_view(row, now) for row in rows)}
            return self._sessions.end_all_of(owners, actor=actor, reason=EndReason.REVOKED)
