"""Receives revocations on its own thread and updates the state."""

import json
import logging
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import kombu
from kombu.exceptions import OperationalError

from userapi_client.revocation import Events
from userapi_client.revocation_state import RevocationState

log = logging.getLogger("userapi_client")
_library: Any = kombu  # It has no annotations.

HEARTBEAT_SECONDS = 4
CONNECT_TIMEOUT_SECONDS = 5
POLL_SECONDS = 0.5
RECONNECT_SECONDS = 0.5
BINDINGS = (
    "session.revoked",
    "api_key.revoked",
    "api_key.rotated",
    "user.suspended",
    "user.deleted",
    "user.password_changed",
    "user.roles_changed",
    "service_account.suspended",
    "service_account.deleted",
    "service_account.roles_changed",
    "role.updated",
    "role.deleted",
)


class RevocationListener:
    """One thread and one exclusive queue, which the broker deletes with its connection."""

    def __init__(
        self, events: Events, *, state: RevocationState, clock: Callable[[], float]
    ) -> None:
        self._events = events
        self._state = state
        self._clock = clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="userapi-client-events", daemon=True)

    def start(self) -> None:
        """Start to receive."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and wait for it for a moment."""
        self._stopping.set()
        self._thread.join(2 * POLL_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            connection = _library.Connection(
                self._events.amqp_url,
                heartbeat=HEARTBEAT_SECONDS,
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
            )
            try:
                self._receive(connection)
            except (
                OperationalError,
                *connection.connection_errors,
                *connection.channel_errors,
            ) as exc:
                # Not the text: it may contain the URL with its password.
                log.warning("userapi.events_interrupted: %s", type(exc).__name__)
            finally:
                self._state.disconnected()
                connection.release()
            self._stopping.wait(RECONNECT_SECONDS)

    def _receive(self, connection: Any) -> None:
        exchange = _library.Exchange(self._events.exchange, type="topic", durable=True)
        connection.connect()
        channel = connection.channel()
        # A generated name: the broker reserves the names that it generates itself.
        name = f"userapi-client-{uuid.uuid4().hex}"
        queue = _library.Queue(name, exchange, durable=False, exclusive=True, auto_delete=True)
        queue = queue(channel)
        queue.declare()
        for routing_key in BINDINGS:
            queue.bind_to(exchange, routing_key=routing_key)
        with _library.Consumer(channel, [queue], on_message=self._take, accept=None, no_ack=True):
            self._state.connected(self._clock())
            while not self._stopping.is_set():
                with suppress(TimeoutError):
                    connection.drain_events(timeout=POLL_SECONDS)
                connection.heartbeat_check()

    def _take(self, message: Any) -> None:
        try:
            event = json.loads(message.body)
        except (ValueError, RecursionError):
            return
        if isinstance(event, dict):
            self._state.apply(event)
