"""The trial: honest users alone, then the same users together with hostile traffic of every kind.

The service runs as shipped, with PostgreSQL, Redis and nginx in front. The trial passes when no
operation of the honest users becomes more than three times as slow at the 99th percentile, none of
their requests fails, and the service holds no more at the end than in the middle.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.abuse.growth import ALLOWED_GROWTH, GrowthSampler, Holding
from tests.abuse.honest import PASSWORD, HonestUser, Latencies, behave_honestly
from tests.abuse.hostile import ATTACKS, KEY_ENDING_LENGTH, Held
from tests.support.guardian import guardian
from tests.support.gunicorn import REPOSITORY, GunicornService, add_administrator
from tests.support.nginx import NginxProxy
from tests.support.servers import PostgresServer, RedisServer
from tests.support.service_clients import log_in
from userapi_client import Client, ClientCredentials, Login

ALLOWED_RATIO = 3.0
USERS = 12
ADMINISTRATOR = "admin"
ATTACKERS_END_SECONDS = 120.0
# 127.1.0.1 and so on; attackers have networks of their own from 127.10.0.0 on.
HONEST_ADDRESS = "127.1.0.{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long each part takes, in seconds."""

    alone_seconds: float = 120.0
    abused_seconds: float = 1800.0


@dataclass(slots=True, kw_only=True)
class Report:
    """What was measured, and what is wrong about it: nothing, if the trial passes."""

    alone: Latencies
    abused: Latencies
    answers: dict[str, dict[str, int]]
    first: Holding
    last: Holding
    growth: Holding
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = ["honest users        alone p99    abused p99   ratio   requests"]
        for operation in sorted(self.alone.measured):
            before, after = self.alone.p99(operation), self.abused.p99(operation)
            count = len(self.abused.measured.get(operation, ()))
            lines.append(
                f"{operation:18} {before:>8.1f} ms {after:>10.1f} ms {after / before:>7.1f}"
                f" {count:>10}"
            )
        lines.append("\nthe service holds       first       last     growth    allowed")
        for name, allowed in asdict(ALLOWED_GROWTH).items():
            first, last = getattr(self.first, name), getattr(self.last, name)
            grown = getattr(self.growth, name)
            lines.append(
                f"{name.replace('_', ' '):18} {first:>10.1f} {last:>10.1f} {grown:>10.1f}"
                f" {allowed:>10.1f}"
            )
        lines.append("\nhostile traffic      strikes   answers")
        for name, answers in sorted(self.answers.items()):
            seen = ", ".join(
                f"{count} × {answer}" for answer, count in Counter(answers).most_common(4)
            )
            lines.append(f"{name:18} {sum(answers.values()):>9}   {seen}")
        return "\n".join([*lines, "", *(f"FAULT: {fault}" for fault in self.faults)])


def run_trial(directory: Path, plan: Plan) -> Report:
    """Run the trial on private servers below `directory` and return what it showed."""
    with ExitStack() as stack:
        for name in ("postgresql", "redis", "nginx"):
            (directory / name).mkdir(parents=True)
        database = stack.enter_context(PostgresServer(directory / "postgresql"))
        store = stack.enter_context(RedisServer(directory / "redis"))
        service = GunicornService(
            {
                "ENVIRONMENT": "testing",
                "SECRET_KEY": "abuse-signs-cursors-with-this-4fZq81Lw0c",
                "PASSWORD_PEPPER": "abuse-hashes-passwords-with-this-2bTn64Rj",
                "DATABASE_URL": database.url,
                "REDIS_URL": store.url,
                "TRUSTED_PROXY_COUNT": "1",
                "WEB_CONCURRENCY": "2",
                "INSTANCE_DIR": str(directory / "instance"),
            }
        )
        _make_users(service)
        stack.enter_context(service)
        proxy = stack.enter_context(NginxProxy(service.port, directory / "nginx"))
        return _measure(service, proxy.port, store.url, plan)


def _make_users(service: GunicornService) -> None:
    rows = [
        {
            "username": f"honest{number}",
            "email": f"honest{number}@example.com",
            "password": PASSWORD,
        }
        for number in range(USERS)
    ]
    file = service.directory / "users.ndjson"
    file.write_text("\n".join(json.dumps(row | {"status": "active"}) for row in rows), "utf-8")
    for arguments in (("db", "upgrade"), ("users", "import", str(file))):
        done = service.flask(*arguments)
        if done.returncode != 0:
            raise RuntimeError(f"flask {' '.join(arguments)}: {done.stdout}{done.stderr}")
    add_administrator(service, PASSWORD, username=ADMINISTRATOR)


def _measure(service: GunicornService, port: int, redis_url: str, plan: Plan) -> Report:
    base_url = f"http://127.0.0.1:{port}"
    machine, held = _credentials(base_url)
    users = [
        HonestUser(base_url, HONEST_ADDRESS.format(number + 1), f"honest{number}", machine)
        for number in range(USERS)
    ]
    alone = behave_honestly(users, seconds=plan.alone_seconds)
    sampler = GrowthSampler(service, redis_url)
    first = sampler.take()
    with _attackers(port, held) as attackers:
        sampler.start()
        abused = behave_honestly(users, seconds=plan.abused_seconds)
        sampler.stop()
        answers, _ = attackers.communicate(timeout=ATTACKERS_END_SECONDS)
    report = Report(
        alone=alone,
        abused=abused,
        answers=json.loads(answers),
        first=first,
        last=sampler.take_last(),
        growth=sampler.growth(),
    )
    _judge(report)
    return report


@contextmanager
def _attackers(port: int, held: Held) -> Iterator[subprocess.Popen[str]]:
    """Start the process that attacks; it ends when its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.abuse.hostile", "--port", str(port)],
        cwd=REPOSITORY,
        env={**os.environ, "HELD": json.dumps(asdict(held))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    guardian.watch(process.pid, ended_by=signal.SIGKILL)
    try:
        yield process
    finally:
        guardian.release(process.pid)
        if process.poll() is None:
            process.kill()
            process.wait()


def _credentials(base_url: str) -> tuple[ClientCredentials, Held]:
    """Make service accounts and keys; return those of the honest service and of the attackers."""
    ended = log_in(base_url, "honest0")
    with Client(base_url, ended) as user:
        user.auth.logout()
    with Client(base_url, Login(ADMINISTRATOR, PASSWORD)) as api:
        honest = api.service_accounts.create(name="honest", roles=["moderator"])
        honest_key = api.api_keys.create(service_account=honest.id, name="production")
        rogue = api.service_accounts.create(name="rogue", roles=["user"])
        revoked = api.api_keys.create(service_account=rogue.id, name="leaked")
        api.api_keys.delete(revoked.id, service_account=rogue.id)
        flooding = api.api_keys.create(service_account=rogue.id, name="flooding")
    held = Held(
        ended_token=ended.access_token,
        revoked_key=revoked.key,
        known_key=honest_key.key[:-KEY_ENDING_LENGTH],
        known_client=honest.id,
        own_client=rogue.id,
        own_key=flooding.key,
    )
    return ClientCredentials(honest.id, honest_key.key), held


def _judge(report: Report) -> None:
    for operation in sorted(report.alone.measured):
        before, after = report.alone.p99(operation), report.abused.p99(operation)
        if after > ALLOWED_RATIO * before:
            report.faults.append(f"{operation}: {after / before:.1f} times as slow")
    for when, latencies in (("alone", report.alone), ("abused", report.abused)):
        for failure in sorted(set(latencies.failures)):
            count = latencies.failures.count(failure)
            report.faults.append(f"honest users, {when}: {count} × {failure}")
    for name, allowed in asdict(ALLOWED_GROWTH).items():
        if getattr(report.growth, name) > allowed:
            report.faults.append(f"{name} grows by {getattr(report.growth, name):.1f}")
    for attack in ATTACKS:
        if not report.answers.get(attack.name):
            report.faults.append(f"{attack.name} was never tried")
