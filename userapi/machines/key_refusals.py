"""The audit rows of refused keys: at most one for each key, reason and minute."""

import threading
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from cachetools import LRUCache

from userapi.actor import Actor
from userapi.audit.actions import AuditAction, Outcome
from userapi.infrastructure.database import dialect_of, table_of, transaction, upsert
from userapi.machines.active_keys import kept_key
from userapi.machines.models import KeyRefusal
from userapi.machines.status import KeyReference
from userapi.machines.views import key_view
from userapi.recorder import Recorder

INTERVAL = timedelta(seconds=60)
MAX_REFUSALS = 10_000

_table = table_of(KeyRefusal)


class KeyRefusals:
    """Records refused keys."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        # The refusals that this process has recorded: most refusals cost no statement.
        self._recorded: LRUCache[tuple[UUID, str], datetime] = LRUCache(MAX_REFUSALS)
        self._lock = threading.Lock()

    def record(self, reference: KeyReference, code: str, *, actor: Actor) -> None:
        """Record that a key was refused with this code. Keys that do not exist leave no row."""
        now, refusal = self._recorder.now(), (reference.key_id, code)
        with self._lock:
            last = self._recorded.get(refusal)
            if last is not None and now < last + INTERVAL:
                return
            self._recorded[refusal] = now
        with transaction() as session:
            key = kept_key(session, reference.key_id)
            if key is None:
                return
            # Of concurrent processes, one finds the last row to be old enough.
            statement = upsert(
                dialect_of(session),
                _table,
                {"key_id": reference.key_id, "reason": code, "recorded_at": now},
                changes={"recorded_at": now},
                where=_table.c.recorded_at <= now - INTERVAL,
            ).returning(_table.c.key_id)
            if session.execute(statement).first() is None:
                return
            self._recorder.audit.record(
                AuditAction.AUTH_KEY_REFUSED,
                actor=replace(actor, key_id=reference.key_id),
                target=("api_key", reference.key_id),
                outcome=Outcome.FAILURE,
                details={**key_view(key, now).audit_details, "reason": code},
            )
