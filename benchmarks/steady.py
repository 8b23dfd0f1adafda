"""Requests of which only a few are answered in a second, because they wait for a hash.

wrk counts the answers until its time is over. The requests that are being processed at that moment
are not counted, although the service has worked on them: eight connections lose 5 % of 12 seconds.
Here the count begins when every connection has had an answer, and processing overlaps both ends of
the measured time equally.
"""

import http.client
import itertools
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.load import Outcome, Request, balance, cpu_seconds, cpu_since


@dataclass(frozen=True, slots=True)
class _Answer:
    connection: int
    status: int
    begun: float
    ended: float


def send_steadily(
    base_url: str,
    request: Request,
    *,
    seconds: float,
    connections: int = 8,
    service_pids: Sequence[int],
    database_pids: Sequence[int] = (),
) -> Outcome:
    """Send requests without pause; return what was answered in some seconds of them."""
    address = urlsplit(base_url)
    bodies, lock = _bodies(request), threading.Lock()
    answers: list[_Answer] = []
    enough = threading.Event()

    def serve(number: int) -> None:
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
        with closing(connection):
            while not enough.is_set():
                with lock:
                    body = next(bodies)
                begun = time.perf_counter()
                connection.request(request.method, request.path, body, dict(request.headers))
                response = connection.getresponse()
                response.read()
                answers.append(_Answer(number, response.status, begun, time.perf_counter()))

    with ThreadPoolExecutor(connections) as threads:
        senders = [threads.submit(serve, number) for number in range(connections)]
        try:
            while len({answer.connection for answer in answers}) < connections:
                if any(sender.done() for sender in senders):
                    break
                time.sleep(0.01)
            before, database_before = cpu_seconds(service_pids), cpu_seconds(database_pids)
            begun = time.perf_counter()
            time.sleep(seconds)
            ended = time.perf_counter()
            used = cpu_since(before, service_pids)
            database_used = cpu_since(database_before, database_pids)
        finally:
            enough.set()
        for sender in senders:
            sender.result()
    counted = [answer for answer in answers if begun <= answer.ended < ended]
    refused = sum(answer.status != request.status for answer in counted)
    latencies = [(answer.ended - answer.begun) * 1000 for answer in counted]
    return Outcome(
        requests=len(counted),
        per_second=(len(counted) - refused) / (ended - begun),
        p50=statistics.median(latencies),
        p99=statistics.quantiles(latencies, n=100)[-1],
        errors=refused,
        cpu_ms=sum(used) * 1000 / len(counted),
        database_cpu_ms=sum(database_used) * 1000 / len(counted),
        balance=balance(used),
    )


def _bodies(request: Request) -> Iterator[str]:
    if request.is_numbered:
        (body,) = request.bodies
        return (body.replace("#", str(number)) for number in itertools.count(1))
    return itertools.cycle(request.bodies)
