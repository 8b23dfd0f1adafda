"""Decides whether a request is sent again, and when. Does no input or output."""

import random
import time
from dataclasses import dataclass, field

import httpx2

from userapi_client.replies import CORRELATION_ID, OUTAGES, body_of, retry_after_of

FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 5.0
# After these errors, the request has not reached a server.
NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


@dataclass(slots=True, kw_only=True)
class Retries:
    """The attempts of one request: at most `left` more, until `budget` seconds have passed."""

    left: int
    budget: float
    is_repeatable: bool
    """Whether the request is idempotent."""
    tries: int = 0
    outcome_is_open: bool = False
    """Whether an earlier attempt may have taken effect."""
    _started_at: float = field(default_factory=time.monotonic)

    def wait_after_error(self, error: httpx2.TransportError) -> float | None:
        """Return the seconds to wait after an error of the connection, or None to give up."""
        if isinstance(error, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
            return None
        if not isinstance(error, NOT_SENT):
            self.outcome_is_open = True
            if not self.is_repeatable:
                return None
        return self._next_wait(None)

    def wait_after_reply(self, response: httpx2.Response) -> float | None:
        """Return the seconds to wait after a response, or None if the response is final."""
        status = response.status_code
        if 300 <= status < 400:
            return None  # Not followed, so that no credential is sent to another address.
        is_cut = CORRELATION_ID not in response.headers
        code = body_of(response).get("code") if status in (409, 429) else None
        if is_cut or status in OUTAGES:
            self.outcome_is_open = True
        elif (status, code) not in ((429, "rate_limited"), (409, "request_in_progress")):
            return None
        return self._next_wait(retry_after_of(response)) if self.is_repeatable else None

    def _next_wait(self, retry_after: float | None) -> float | None:
        """Return the next wait: exponential backoff with full jitter."""
        if self.left <= 0:
            return None
        longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**self.tries)
        # Jitter, not a secret.
        wait = (retry_after or 0.0) + random.uniform(0, longest)  # nosec B311
        if time.monotonic() - self._started_at + wait > self.budget:
            return None
        self.left -= 1
        self.tries += 1
        return wait
