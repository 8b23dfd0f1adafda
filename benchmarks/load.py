"""Sending load with wrk, and what it cost: requests, latencies, seconds of CPU by process."""

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent over and over: several bodies in turn; `#` in a numbered one is a new number.

    With `successor`, a field of the answer, each connection begins with one of the bodies and then
    sends what it has got.
    """

    path: str
    method: str = "GET"
    headers: dict[str, str]
    bodies: Sequence[str] = ()
    is_numbered: bool = False
    successor: str | None = None
    status: int = 200
    """The expected status; of it, wrk distinguishes only whether it is below 400."""

    def script(self) -> str:
        """Return the request as a program for wrk."""
        lines = [f'wrk.method = "{self.method}"']
        lines += [f'wrk.headers["{name}"] = [[{value}]]' for name, value in self.headers.items()]
        if self.is_numbered:
            (body,) = self.bodies
            lines.append(
                f"local number = 0\nrequest = function()\n number = number + 1\n"
                f' return wrk.format(nil, nil, nil, (string.gsub([[{body}]], "#", number)))\nend'
            )
        elif self.successor:
            lines += [*_listed(self.bodies), _FOLLOW.replace("FIELD", self.successor)]
        elif len(self.bodies) == 1:
            lines.append(f"wrk.body = [[{self.bodies[0]}]]")
        elif self.bodies:
            lines += [*_listed(self.bodies), "local turn = 0"]
            lines.append(
                "request = function()\n turn = turn % #bodies + 1\n"
                " return wrk.format(nil, nil, nil, bodies[turn])\nend"
            )
        return "\n".join(lines)


def _listed(bodies: Sequence[str]) -> list[str]:
    quoted = ",\n".join(f"[[{body}]]" for body in bodies)
    return [f"local bodies = {{{quoted}}}"]


# Each connection has a thread of its own, and each thread an interpreter.
_FOLLOW = """
local threads = 0
function setup(thread)
 threads = threads + 1
 thread:set("number", threads)
end
local body
request = function()
 body = body or bodies[number]
 return wrk.format(nil, nil, nil, body)
end
response = function(status, headers, text)
 local got = string.match(text, '"FIELD":"([^"]+)"')
 body = got and '{"FIELD":"' .. got .. '"}' or body
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a round of load has shown; times in milliseconds, `per_second` without what failed.

    `balance` is the CPU time of the second busiest worker process by that of the busiest: with few
    connections that stay open, one process can happen to get nearly all of them.
    """

    requests: int
    per_second: float
    p50: float
    p99: float
    errors: int
    cpu_ms: float
    database_cpu_ms: float
    balance: float


def cpu_seconds(pids: Sequence[int]) -> dict[int, float]:
    """Return the CPU time that each of these processes and of their descendants has used."""
    used = {}
    for pid in _family(pids):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # Ended meanwhile.
        used[pid] = (int(fields[11]) + int(fields[12])) / TICKS
    return used


def cpu_since(before: dict[int, float], pids: Sequence[int]) -> list[float]:
    """Return the CPU time of each process since then, the busiest first."""
    now = cpu_seconds(pids)
    return sorted((now[pid] - before.get(pid, 0.0) for pid in now), reverse=True)


def balance(used: Sequence[float]) -> float:
    """Return what the second busiest process has used, divided by what the busiest has used."""
    return used[1] / used[0] if len(used) > 1 and used[0] else 0.0


def _family(pids: Sequence[int]) -> set[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat[1])
    family = set(pids)
    grown = True
    while grown:
        grown = False
        for pid, parent in parents.items():
            if parent in family and pid not in family:
                family.add(pid)
                grown = True
    return family


def send(
    base_url: str,
    request: Request,
    *,
    seconds: int,
    connections: int = 8,
    service_pids: Sequence[int],
    database_pids: Sequence[int] = (),
) -> Outcome:
    """Send load for some seconds and return what it has shown."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua", delete=False) as file:
        file.write(request.script())
    before, database_before = cpu_seconds(service_pids), cpu_seconds(database_pids)
    try:
        run = subprocess.run(
            [
                "wrk",
                f"-t{connections if request.successor else 1}",
                f"-c{connections}",
                f"-d{seconds}s",
                "--latency",
                "--timeout",
                "20s",
                "-s",
                file.name,
                base_url + request.path,
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        os.unlink(file.name)
    used, database_used = cpu_since(before, service_pids), cpu_since(database_before, database_pids)
    count = int(_found(r"(\d+) requests in", run.stdout) or 0)
    refused = int(_found(r"Non-2xx or 3xx responses: (\d+)", run.stdout) or 0)
    if request.status >= 400:
        refused = count - refused
    return Outcome(
        requests=count,
        per_second=float(_found(r"Requests/sec:\s+([\d.]+)", run.stdout) or 0)
        * (1 - refused / max(count, 1)),
        p50=_latency("50%", run.stdout),
        p99=_latency("99%", run.stdout),
        errors=refused,
        cpu_ms=sum(used) * 1000 / max(count, 1),
        database_cpu_ms=sum(database_used) * 1000 / max(count, 1),
        balance=balance(used),
    )


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match[1] if match else None


def _latency(name: str, text: str) -> float:
    match = re.search(rf"{name}\s+([\d.]+)(us|ms|s|m)", text)
    return float(match[1]) * UNITS[match[2]] if match else 0.0
