"""The subscription of this process to events about revocations."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from userapi_client.revocation import Events
from userapi_client.revocation_state import RevocationState


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """The events that a thread of this process receives, and how to stop it."""

    state: RevocationState
    end: Callable[[], None]
    process_id: int

    @property
    def is_own(self) -> bool:
        """Return whether this process has the thread; a fork does not."""
        return self.process_id == os.getpid()


def subscribe(events: Events, *, leeway: float, clock: Callable[[], float]) -> Subscription:
    """Start a thread that receives events. Raises ImportError without the extra `events`."""
    # Imported here because kombu is installed only with the extra.
    from userapi_client.revocation_listener import RevocationListener

    state = RevocationState(leeway=leeway)
    listener = RevocationListener(events, state=state, clock=clock)
    listener.start()
    return Subscription(state=state, end=listener.stop, process_id=os.getpid())
