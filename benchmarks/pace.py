"""Requests at a fixed rate: what a read takes while others do something else.

Each request has its moment, whether the one before it was answered or not, and its time counts
from that moment: a service that stalls cannot hide behind a client that waits for it.
"""

import http.client
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
    moments: SimpleQueue[float | None] = SimpleQueue()
    latencies: list[float] = []
    refused: list[int] = []

    def serve() -> None:
        connection = http.client.HTTPConnection(parts.netloc, timeout=30)
        while (moment := moments.get()) is not None:
            connection.request("GET", parts.path, headers=dict(headers))
            answer = connection.getresponse()
            answer.read()
            latencies.append((time.perf_counter() - moment) * 1000)
            if answer.status != 200:
                refused.append(answer.status)
        connection.close()

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
