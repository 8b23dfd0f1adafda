"""The proxy that simulates broken networks causes the faults that it documents."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.proxy import FaultProxy


def _echo(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        while data := connection.recv(65536):
            connection.sendall(data)


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    """Return a proxy before a server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=_echo, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with FaultProxy("127.0.0.1", listener.getsockname()[1]) as proxy:
        yield proxy
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def _connect(proxy: FaultProxy, *, timeout_seconds: float = 5) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), timeout=timeout_seconds)


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size and (data := connection.recv(size - len(received))):
        received += data
    return received


def test_everything_passes_in_both_directions(proxy: FaultProxy) -> None:
    sent = bytes(range(256)) * 4096
    with _connect(proxy) as connection:
        threading.Thread(target=connection.sendall, args=(sent,), daemon=True).start()

        assert _receive(connection, len(sent)) == sent


def test_a_client_that_has_said_all_still_gets_its_answer(proxy: FaultProxy) -> None:
    with _connect(proxy) as connection:
        connection.sendall(b"hello")
        connection.shutdown(socket.SHUT_WR)

        assert _receive(connection, 100) == b"hello"


def test_refusing_resets_open_connections_and_accepts_no_new_ones(proxy: FaultProxy) -> None:
    with _connect(proxy) as connection:
        connection.sendall(b"hello")
        assert _receive(connection, 5) == b"hello"

        proxy.refuse()

        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with pytest.raises(ConnectionRefusedError):
        _connect(proxy)


def test_after_refusing_the_same_port_serves_again(proxy: FaultProxy) -> None:
    proxy.refuse()

    proxy.pass_on()

    with _connect(proxy) as connection:
        connection.sendall(b"hello")
        assert _receive(connection, 5) == b"hello"


def test_a_black_hole_answers_nothing_until_it_ends(proxy: FaultProxy) -> None:
    proxy.black_hole()
    with _connect(proxy, timeout_seconds=0.2) as connection:
        connection.sendall(b"hello")
        with pytest.raises(TimeoutError):
            connection.recv(1)

        proxy.pass_on()

        connection.settimeout(5)
        assert _receive(connection, 5) == b"hello"


def test_an_open_connection_falls_into_the_black_hole(proxy: FaultProxy) -> None:
    with _connect(proxy, timeout_seconds=0.2) as connection:
        connection.sendall(b"hello")
        assert _receive(connection, 5) == b"hello"

        proxy.black_hole()

        connection.sendall(b"again")
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_an_answer_is_cut_after_the_given_bytes(proxy: FaultProxy) -> None:
    proxy.cut_mid_answer(7)
    with _connect(proxy) as connection:
        connection.sendall(b"hello, world")

        received = _receive(connection, 100)

    assert received == b"hello, "


def test_bytes_are_counted_from_the_change_of_mode(proxy: FaultProxy) -> None:
    with _connect(proxy) as connection:
        connection.sendall(b"before")
        assert _receive(connection, 6) == b"before"

        proxy.cut_mid_answer(2)

        connection.sendall(b"after")
        assert _receive(connection, 100) == b"af"


def test_answers_come_later_by_the_delay(proxy: FaultProxy) -> None:
    proxy.delay(0.3)
    with _connect(proxy) as connection:
        began = time.monotonic()
        connection.sendall(b"hello")
        received = _receive(connection, 5)
        took = time.monotonic() - began

    assert received == b"hello"
    assert 0.3 <= took < 2


@pytest.mark.thorough
def test_a_trickle_is_one_byte_a_second(proxy: FaultProxy) -> None:
    proxy.trickle()
    with _connect(proxy) as connection:
        began = time.monotonic()
        connection.sendall(b"hello")
        received = _receive(connection, 2)
        took = time.monotonic() - began

    assert received == b"he"
    assert 2 <= took < 4


def test_a_server_that_is_away_resets_the_client() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()[1]

    with FaultProxy("127.0.0.1", nobody) as proxy:
        # The reset may come as early as the client finds itself connected.
        with pytest.raises(ConnectionResetError), _connect(proxy) as connection:
            connection.recv(1)


def test_ended_connections_are_forgotten(proxy: FaultProxy) -> None:
    with _connect(proxy) as connection:
        connection.sendall(b"hello")
        assert _receive(connection, 5) == b"hello"
        assert proxy.open_connections == 1

    deadline = time.monotonic() + 5
    while proxy.open_connections and time.monotonic() < deadline:
        time.sleep(0.01)
    assert proxy.open_connections == 0
