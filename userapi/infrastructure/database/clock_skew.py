"""How far the clocks of this machine and of PostgreSQL are apart."""

import time
from typing import Any

import structlog

log = structlog.get_logger(__name__)

# Verifiers of tokens allow the same.
MAX_SKEW_SECONDS = 10

_CLOCK = "SELECT extract(epoch FROM clock_timestamp())"


def measure_skew(connection: Any, *, tolerated_seconds: float) -> float:
    """Return by how many seconds this machine's clock is ahead; log a skew that is not tolerated.

    PostgreSQL reads its clock halfway between question and answer, on average.
    """
    with connection.cursor() as cursor:
        sent_at = time.time()
        cursor.execute(_CLOCK)
        received_at = time.time()
        (server_time,) = cursor.fetchone()
    skew = (sent_at + received_at) / 2 - float(server_time)
    if abs(skew) > tolerated_seconds:
        log.warning("clock.skewed", seconds=round(skew, 1), fix="Synchronise clocks with NTP.")
    return skew
