"""Reads at a fixed rate, alone and while many connections log in."""

from concurrent.futures import ThreadPoolExecutor

from benchmarks import report
from benchmarks.load import Request
from benchmarks.pace import Paced, send_at_rate
from benchmarks.steady import send_steadily
from tests.support.gunicorn import GunicornService

CONNECTIONS = 16
# Until every connection has had its first answer; the count of log-ins ends with the reads.
RAMP_SECONDS = 4


def storm(
    service: GunicornService,
    read: Request,
    log_ins: Request,
    per_second: float,
    logins_alone: float,
    seconds: int,
    figures: dict[str, list[float]],
) -> None:
    """Read at a fixed rate alone, then while as many as can log in."""
    url = service.base_url + read.path

    def reads() -> Paced:
        return send_at_rate(url, read.headers, per_second=per_second, seconds=seconds - 1)

    alone = reads()
    if alone.refused:
        raise AssertionError(f"{alone.refused} reads were refused")
    with ThreadPoolExecutor(1) as background:
        logins = background.submit(
            send_steadily,
            service.base_url,
            log_ins,
            seconds=seconds - RAMP_SECONDS,
            connections=CONNECTIONS,
            service_pids=[service.pid],
        )
        stormy = reads()
        rate = logins.result().per_second
    for name, paced in (("alone", alone), ("in a storm", stormy)):
        print(
            f"  {report.ME} at {per_second:.0f}/s {name}: p50 {paced.p50:.2f} ms,"
            f" p99 {paced.p99:.2f} ms" + (f", {paced.refused} refused" if paced.refused else ""),
            flush=True,
        )
    print(f"  log-ins meanwhile: {rate:.1f}/s", flush=True)
    figures.setdefault(report.READ_IN_STORM, []).append(stormy.p99 / alone.p99)
    figures.setdefault(report.LOG_INS_IN_STORM, []).append(rate / logins_alone)
