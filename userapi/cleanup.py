"""Deletes rows that are no longer needed, in small batches that block no other statement."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import ColumnElement, delete, exists, or_, select, tuple_

from userapi.accounts.bulk_jobs.models import BulkJob, BulkJobFailure
from userapi.accounts.imports.job_models import ImportBatch, ImportedRow, ImportJob
from userapi.clock import Clock
from userapi.events.expiry import EventExpiry
from userapi.events.models import OutboxEvent
from userapi.factors.models import TotpFactor, UsedChallenge
from userapi.infrastructure.database import table_of, transaction
from userapi.infrastructure.heartbeat import WorkerHeartbeat
from userapi.infrastructure.idempotency_keys import IdempotencyKey
from userapi.lockout.models import LoginAttempt
from userapi.lockout.service import CODE_KEY_PREFIX
from userapi.machines.keys import ENDED_KEYS_KEPT
from userapi.machines.models import ApiKey, ClientToken
from userapi.mail.models import OutgoingMail
from userapi.passwords.models import OneTimeToken
from userapi.sessions.models import PendingSignIn, UserSession

log = structlog.get_logger(__name__)

BATCH = 500

# How long rows are kept after their use.
SESSIONS_KEPT = timedelta(days=30)
TOKENS_KEPT = timedelta(days=7)
FAILURES_KEPT = timedelta(hours=24)
SENT_EVENTS_KEPT = timedelta(days=7)
SENT_MAILS_KEPT = timedelta(days=30)
PARKED_MAILS_KEPT = timedelta(days=30)
IMPORTS_KEPT = timedelta(days=30)
# The rows of a checked file, which can be imported until then.
CHECKED_ROWS_KEPT = timedelta(hours=1)
BULK_JOBS_KEPT = timedelta(days=30)
HEARTBEATS_KEPT = timedelta(days=1)


class CleanUp:
    """Deletes what has expired."""

    def __init__(self, clock: Clock, *, expiry: EventExpiry | None = None) -> None:
        """`expiry` deletes unsent events, if no broker is configured."""
        self._clock = clock
        self._expiry = expiry

    def delete_due(self, limit: int = BATCH) -> int:
        """Delete up to `limit` expired rows of each table; return how many were deleted."""
        deleted = 0
        for model, expired in self._rules(self._clock.now()):
            table = table_of(model)
            columns = table.primary_key.columns
            # Locked rows are left for the next pass. The keys are read first and not in a subquery,
            # which PostgreSQL could run again for each row.
            chosen = select(*columns).where(expired).limit(limit).with_for_update(skip_locked=True)
            with transaction() as session:
                keys: Sequence[Any] = session.execute(chosen).all()
                if keys:
                    session.execute(delete(table).where(tuple_(*columns).in_(keys)))
            if keys:
                log.info("cleanup.deleted", table=table.name, rows=len(keys))
            deleted += len(keys)
        if self._expiry is not None:
            deleted += self._expiry.delete_due(limit)
        return deleted

    def _rules(self, now: datetime) -> list[tuple[Any, ColumnElement[bool]]]:
        old_imports = select(ImportJob.id).where(ImportJob.finished_at < now - IMPORTS_KEPT)
        old_checks = select(ImportJob.id).where(ImportJob.finished_at < now - CHECKED_ROWS_KEPT)
        old_bulk_jobs = select(BulkJob.id).where(BulkJob.finished_at < now - BULK_JOBS_KEPT)
        return [
            (IdempotencyKey, IdempotencyKey.expires_at < now),
            (OneTimeToken, OneTimeToken.expires_at < now - TOKENS_KEPT),
            (
                ApiKey,
                or_(
                    ApiKey.revoked_at < now - ENDED_KEYS_KEPT,
                    ApiKey.expires_at < now - ENDED_KEYS_KEPT,
                ),
            ),
            (ClientToken, ClientToken.expires_at < now),
            (PendingSignIn, PendingSignIn.expires_at < now),
            (TotpFactor, TotpFactor.confirmed_at.is_(None) & (TotpFactor.expires_at < now)),
            (UsedChallenge, UsedChallenge.expires_at < now),
            (
                UserSession,
                or_(
                    UserSession.expires_at < now - SESSIONS_KEPT,
                    UserSession.revoked_at < now - SESSIONS_KEPT,
                ),
            ),
            (
                LoginAttempt,
                (LoginAttempt.last_attempt_at < now - FAILURES_KEPT)
                & or_(LoginAttempt.locked_until.is_(None), LoginAttempt.locked_until < now)
                # Wrong codes are counted until a correct one, without a limit of time.
                & or_(
                    LoginAttempt.identifier_hash.not_like(f"{CODE_KEY_PREFIX}%"),
                    LoginAttempt.total_failures == 0,
                ),
            ),
            (OutboxEvent, OutboxEvent.sent_at < now - SENT_EVENTS_KEPT),
            (OutgoingMail, OutgoingMail.sent_at < now - SENT_MAILS_KEPT),
            (OutgoingMail, OutgoingMail.parked_at < now - PARKED_MAILS_KEPT),
            (ImportedRow, ImportedRow.import_id.in_(old_imports)),
            (
                ImportJob,
                ImportJob.id.in_(old_imports)
                & ~exists().where(ImportedRow.import_id == ImportJob.id),
            ),
            (ImportBatch, ImportBatch.import_id.in_(old_checks)),
            (BulkJobFailure, BulkJobFailure.job_id.in_(old_bulk_jobs)),
            (
                BulkJob,
                BulkJob.id.in_(old_bulk_jobs)
                & ~exists().where(BulkJobFailure.job_id == BulkJob.id),
            ),
            (WorkerHeartbeat, WorkerHeartbeat.last_seen_at < now - HEARTBEATS_KEPT),
        ]
