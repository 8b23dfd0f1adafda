"""Requests at a fixed rate: what a read takes while others do something else.

Each request has its moment, whether the one before it was answered or not, and its time counts
from that moment: a service that stalls cannot hide behind a client that waits for it.
"""

import re
import socket
import statistics
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Paced:
    """The latencies of requests at a fixed rate, in milliseconds."""

    requests: int
    refused: int
    p50: float
    p99: float


def send_at_rate(
    url: str, headers: Mapping[str, str], *, per_second: float, seconds: float, connections: int = 8
) -> Paced:
    """Send GET requests at a rate, over so many connections that are kept open."""
    parts = urlsplit(url)
    address = (parts.hostname or "127.0.0.1", parts.port or 80)
    head = {"Host": parts.netloc, **headers}
    lines = [f"GET {parts.path} HTTP/1.1", *(f"{name}: {head[name]}" for name in head)]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    moments: SimpleQueue[float | None] = SimpleQueue()
    latencies: list[float] = []
    refused: list[int] = []

    def serve() -> None:
        with socket.create_connection(address, timeout=30) as connection:
            while (moment := moments.get()) is not None:
                connection.sendall(request)
                status = _read_answer(connection)
                latencies.append((time.perf_counter() - moment) * 1000)
                if status != 200:
                    refused.append(status)

    senders = [threading.Thread(target=serve) for _ in range(connections)]
    for sender in senders:
        sender.start()
    begun = time.perf_counter()
    for number in range(int(per_second * seconds)):
        moment = begun + number / per_second
        time.sleep(max(0.0, moment - time.perf_counter()))
        moments.put(moment)
    for _ in senders:
        moments.put(None)
    for sender in senders:
        sender.join()
    return Paced(
        requests=len(latencies),
        refused=len(refused),
        p50=statistics.median(latencies),
        p99=statistics.quantiles(latencies, n=100)[-1],
    )


def _read_answer(connection: socket.socket) -> int:
    """Read one answer that has a length, and return its status.

    Not by http.client, which takes half as much of the cores as the service that is measured.
    """
    answer = connection.recv(65536)
    while (end := answer.find(b"\r\n\r\n")) < 0:
        answer += _more(connection)
    length = re.search(rb"\r\ncontent-length: *(\d+)", answer[:end], re.IGNORECASE)
    if length is None:
        raise ValueError("an answer without a length")
    missing = end + 4 + int(length[1]) - len(answer)
    while missing > 0:
        missing -= len(_more(connection))
    return int(answer[9:12])


def _more(connection: socket.socket) -> bytes:
    received = connection.recv(65536)
    if not received:
        raise ConnectionError("the answer was cut off")
    return received
