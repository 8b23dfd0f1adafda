"""Ending every session of every user: after a stolen backup, a leaked secret, a restored database.

Each batch is a separate transaction: memory use is constant, users are locked only briefly, and
an interrupted run can be repeated for the remaining sessions.
"""

import random
import time
from collections.abc import Callable
from uuid import UUID

import structlog
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from userapi.accounts.views import ALL_USERS, user_view, users
from userapi.actor import Actor
from userapi.clock import Clock
from userapi.infrastructure.database import transaction
from userapi.sessions.pending_sign_ins import end_every_sign_in
from userapi.sessions.service import EndReason, Sessions

log = structlog.get_logger(__name__)

BATCH_USERS = 500
BATCH_SESSIONS = 1000
MAX_ATTEMPTS = 5


class LogOutEveryone:
    """Ends all sessions, each with its audit row and event."""

    def __init__(self, *, clock: Clock, sessions: Sessions) -> None:
        self._clock = clock
        self._sessions = sessions

    def end_all(self, *, actor: Actor, progress: Callable[[int], object] = lambda n: None) -> int:
        """End every session that was live when this began, and return how many ended.

        `progress` receives the number of each batch. A user who logs in after their batch stays
        logged in. Sign-ins whose second step is missing end first.
        """
        with transaction():
            end_every_sign_in()
        ended, after = 0, None
        while batch := self._next_users(after):
            count = self._end_of(batch, actor=actor)
            ended += count
            progress(count)
            after = batch[-1]
        log.warning("sessions.all_revoked", count=ended)
        return ended

    def _next_users(self, after: UUID | None) -> list[UUID]:
        """Return the users whose sessions form the next batch: at least one user."""
        chosen: list[UUID] = []
        total = 0
        for user_id, count in self._sessions.users_with_live_sessions(
            after=after, limit=BATCH_USERS
        ):
            total += count
            if chosen and total > BATCH_SESSIONS:
                break
            chosen.append(user_id)
        return chosen

    def _end_of(self, user_ids: list[UUID], *, actor: Actor) -> int:
        """End the sessions of these users; retry a batch that waits too long for a lock."""
        attempt = 1
        while True:
            try:
                return self._end_in_transaction(user_ids, actor=actor)
            except OperationalError as exc:
                # A lock time-out or a deadlock: the batch was rolled back.
                if attempt == MAX_ATTEMPTS:
                    raise
                log.warning("sessions.batch_repeated", error=type(exc.orig).__name__)
                time.sleep(random.uniform(0.1, 0.5) * attempt)  # nosec B311
                attempt += 1

    def _end_in_transaction(self, user_ids: list[UUID], *, actor: Actor) -> int:
        with transaction() as session:
            # Lock the users first, in the order of their ids, so that concurrent log-ins wait.
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
