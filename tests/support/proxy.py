"""A TCP proxy that can fail in the ways that networks and servers do."""

import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Self
from urllib.parse import urlsplit, urlunsplit

CHUNK_BYTES = 65536
# How soon a thread that waits for data applies another mode.
POLL_SECONDS = 0.02


class Mode(StrEnum):
    """What the proxy does to its connections, also to open ones."""

    BLACK_HOLE = "black_hole"  # accepts connections and data, answers nothing
    CUT_MID_ANSWER = "cut_mid_answer"  # closes after so many bytes of the answer
    DELAY = "delay"  # hands each piece of an answer on later
    PASS = "pass"
    REFUSE = "refuse"  # does not listen; open connections are reset
    TRICKLE = "trickle"  # one byte of the answer a second


@dataclass(frozen=True, slots=True)
class _Behaviour:
    mode: Mode = Mode.PASS
    answer_bytes: int = 0
    delay_seconds: float = 0.0


class FaultProxy:
    """Forwards a loopback port to a server; each connection has a thread for each direction."""

    def __init__(self, host: str, port: int) -> None:
        self._upstreams = [(host, port)]
        self._behaviour = _Behaviour()
        self._changed = threading.Condition()
        self._connections: set[_Connection] = set()
        self._listener: socket.socket | None = None
        self._closed = False
        self.round_trips = 0  # How often a client has sent data after an answer.
        self.answers_held = 0  # How many pieces of answers `delay` has held back.
        self._listen(0)

    @property
    def host(self) -> str:
        """The address that clients connect to."""
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """The port that clients connect to; it stays the same in all modes."""
        return self._port

    @property
    def open_connections(self) -> int:
        """How many connections there are now."""
        with self._changed:
            return len(self._connections)

    def pass_on(self) -> None:
        """Forward everything."""
        self._become(_Behaviour(Mode.PASS))

    def refuse(self) -> None:
        """Refuse new connections and reset the open ones."""
        self._become(_Behaviour(Mode.REFUSE))

    def black_hole(self) -> None:
        """Accept connections and data and never answer. `pass_on` delivers the held data."""
        self._become(_Behaviour(Mode.BLACK_HOLE))

    def cut_mid_answer(self, answer_bytes: int) -> None:
        """Reset each connection once this many further bytes of its answers have been passed."""
        self._become(_Behaviour(Mode.CUT_MID_ANSWER, answer_bytes=answer_bytes))

    def delay(self, seconds: float) -> None:
        """Hold back every piece of an answer for so long."""
        self._become(_Behaviour(Mode.DELAY, delay_seconds=seconds))

    def trickle(self) -> None:
        """Hand on one byte of the answer a second."""
        self._become(_Behaviour(Mode.TRICKLE))

    def lead_to(self, *ports: int) -> None:
        """Forward each new connection to one of these loopback ports, chosen at random.

        Connections that are open keep their server.
        """
        self._upstreams = [("127.0.0.1", port) for port in ports]

    def close(self) -> None:
        """Stop listening and reset open connections."""
        with self._changed:
            self._closed = True
        self.refuse()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Called by the threads of a connection.

    def behaviour(self) -> _Behaviour:
        """Return what to do now."""
        with self._changed:
            return self._behaviour

    def wait_while(self, same: _Behaviour, seconds: float) -> None:
        """Wait so long, or until the behaviour is another."""
        with self._changed:
            self._changed.wait_for(lambda: self._behaviour is not same, seconds)

    def count_round_trip(self) -> None:
        """Count a round trip when a client sends data after an answer."""
        with self._changed:
            self.round_trips += 1

    def count_held_answer(self) -> None:
        """Count a piece of an answer that is held back."""
        with self._changed:
            self.answers_held += 1

    def remove(self, connection: "_Connection") -> None:
        """Remove a connection that has ended."""
        with self._changed:
            self._connections.discard(connection)

    def _become(self, behaviour: _Behaviour) -> None:
        with self._changed:
            self._behaviour = behaviour
            open_now = list(self._connections)
            self._changed.notify_all()
        if behaviour.mode is Mode.REFUSE:
            self._stop_listening()
            for connection in open_now:
                connection.reset()
        elif self._listener is None and not self._closed:
            self._listen(self._port)

    def _listen(self, port: int) -> None:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
        self._port: int = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            # Closing alone leaves the thread in accept(), which would accept one more connection.
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # The listener was closed.
            connection = _Connection(self, client)
            with self._changed:
                refused = self._behaviour.mode is Mode.REFUSE
                if not refused:
                    self._connections.add(connection)
            if refused:
                connection.reset()
            else:
                upstream = random.choice(self._upstreams)
                threading.Thread(target=connection.serve, args=(upstream,), daemon=True).start()


def proxy_to(url: str) -> FaultProxy:
    """Return a proxy to the server behind a URL."""
    parts = urlsplit(url)
    return FaultProxy(parts.hostname or "", parts.port or 0)


def url_through(proxy: FaultProxy, url: str) -> str:
    """Return a server's URL, password and all, with the way through a proxy."""
    parts = urlsplit(url)
    credentials, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{credentials}{at}{proxy.host}:{proxy.port}"))


class _Connection:
    """One client's connection and, when the mode allows it, the one to the server."""

    def __init__(self, proxy: FaultProxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server: socket.socket | None = None
        self._ended = threading.Event()
        # Bytes of the answers since the mode last changed; only the thread of answers counts.
        self._answered = 0
        self._counting_for: _Behaviour | None = None
        self._awaits_answer = False

    def serve(self, upstream: tuple[str, int]) -> None:
        """Connect to the server and forward until it has no more to say."""
        self._hold_in_black_hole()
        try:
            self._server = socket.create_connection(upstream, timeout=60)
        except OSError:
            self.reset()
            return
        try:
            self._client.settimeout(POLL_SECONDS)
            self._server.settimeout(POLL_SECONDS)
        except OSError:
            self._ended.set()  # It was reset while the server was being reached.
        if self._ended.is_set():
            self._close()
            return
        answers = threading.Thread(target=self._pass_answers, args=(self._server,), daemon=True)
        answers.start()
        if self._forward(self._client, self._ask):
            # A client may close its direction and still wait for the answer.
            self._hold_in_black_hole()
            with suppress(OSError):
                self._server.shutdown(socket.SHUT_WR)
        answers.join()
        self._close()

    def reset(self) -> None:
        """End both connections with a reset, as a crashed host would."""
        self._ended.set()
        for end in (self._client, self._server):
            if end is not None:
                # Lingering for 0 seconds makes the close a reset.
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._close()

    def _close(self) -> None:
        self._ended.set()
        for end in (self._client, self._server):
            if end is not None:
                end.close()
        self._proxy.remove(self)

    def _pass_answers(self, server: socket.socket) -> None:
        self._forward(server, self._answer)
        self._hold_in_black_hole()
        self._ended.set()

    def _forward(self, source: socket.socket, hand_on: Callable[[bytes], None]) -> bool:
        """Forward data until there is no more; return whether the connection ended in order."""
        while not self._ended.is_set():
            try:
                data = source.recv(CHUNK_BYTES)
                if not data:
                    return True
                hand_on(data)
            except TimeoutError:
                continue
            except OSError:
                break
        self._ended.set()
        return False

    def _ask(self, data: bytes) -> None:
        if not self._awaits_answer:
            self._awaits_answer = True
            self._proxy.count_round_trip()
        self._hold_in_black_hole()
        self._send(self._server, data)

    def _answer(self, data: bytes) -> None:
        while data and not self._ended.is_set():
            self._hold_in_black_hole()
            behaviour = self._proxy.behaviour()
            if behaviour is not self._counting_for:
                self._counting_for = behaviour
                self._answered = 0
            if behaviour.mode is Mode.DELAY:
                self._proxy.count_held_answer()
                self._proxy.wait_while(behaviour, behaviour.delay_seconds)
                piece = data
            elif behaviour.mode is Mode.TRICKLE:
                self._proxy.wait_while(behaviour, 1.0)
                piece = data[:1]
            elif behaviour.mode is Mode.CUT_MID_ANSWER:
                piece = data[: behaviour.answer_bytes - self._answered]
            else:
                piece = data
            self._awaits_answer = False
            self._send(self._client, piece)
            self._answered += len(piece)
            data = data[len(piece) :]
            if behaviour.mode is Mode.CUT_MID_ANSWER and self._answered >= behaviour.answer_bytes:
                self._cut()

    def _cut(self) -> None:
        # An orderly end, so that the bytes before the cut arrive; a reset may overtake them.
        with suppress(OSError):
            self._client.shutdown(socket.SHUT_RDWR)
        self._ended.set()

    def _hold_in_black_hole(self) -> None:
        behaviour = self._proxy.behaviour()
        while behaviour.mode is Mode.BLACK_HOLE and not self._ended.is_set():
            self._proxy.wait_while(behaviour, POLL_SECONDS)
            behaviour = self._proxy.behaviour()
        if behaviour.mode is Mode.REFUSE:
            # What was held back is lost with the connection, which is about to be reset.
            self._ended.set()

    def _send(self, target: socket.socket | None, data: bytes) -> None:
        if target is None:
            return
        view = memoryview(data)
        while view and not self._ended.is_set():
            try:
                view = view[target.send(view) :]
            except TimeoutError:
                time.sleep(0)
