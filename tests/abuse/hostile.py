"""Hostile traffic of many kinds, each at a steady rate from separate addresses.

An attack sends over raw sockets what no client library would send. It ignores every answer: the
honest traffic beside it shows whether it did any harm. All addresses are loopback addresses.

Run as a program it attacks until its standard input is closed and then prints what it saw as JSON.
It is a process of its own at the lowest priority: attackers on a network use their own machines, so
their CPU time must not delay the service or the honest users.
"""

import argparse
import itertools
import json
import os
import random
import socket
import string
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import quote

from tests.support.raw_http import request_bytes

ANSWER_SECONDS = 5.0
LOWEST_PRIORITY = 19
KIB = 1024
FORM = "application/x-www-form-urlencoded"
# A key has a prefix and 22 characters of its id, 43 of its secret and 6 of a CRC-32, in base 62.
DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
KEY_ID_LENGTH, KEY_SECRET_LENGTH, KEY_CHECKSUM_LENGTH = 22, 43, 6
KEY_ENDING_LENGTH = KEY_SECRET_LENGTH + KEY_CHECKSUM_LENGTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The credentials that attackers may hold."""

    ended_token: str
    """A properly signed access token whose session has ended."""
    revoked_key: str
    known_key: str
    """The public beginning of a key that works: prefix and id, without its secret."""
    known_client: str
    """The id of the service account of that key."""
    own_client: str
    own_key: str
    """A service account and a key that work, in the hands of an attacker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the service listens, and what an attacker holds."""

    port: int
    held: Held


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One kind of hostile traffic: `strike` runs `per_second` times a second on average."""

    name: str
    per_second: float
    strike: Callable[[Target, str], str]


@dataclass(slots=True)
class Tally:
    """What the service answered to each attack, with counts."""

    answers: dict[str, Counter[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, name: str, outcome: str) -> None:
        """Count one strike and its outcome."""
        with self._lock:
            self.answers.setdefault(name, Counter())[outcome] += 1


def addresses(network: int) -> Iterator[str]:
    """Yield the addresses of one attacker's network in turn: 127.`network`.0.1 and so on."""
    for number in itertools.cycle(range(1, 41)):
        yield f"127.{network}.0.{number}"


def run_attacks(target: Target, attacks: list[Attack], over: threading.Event, tally: Tally) -> None:
    """Run every attack on threads of its own until `over` is set."""
    threads = [
        threading.Thread(target=_repeat, args=(target, attack, number, over, tally), daemon=True)
        for number, attack in enumerate(attacks, start=10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _repeat(
    target: Target, attack: Attack, network: int, over: threading.Event, tally: Tally
) -> None:
    """Start strikes at the attack's rate; at most ten of one attack run at once."""
    places = threading.BoundedSemaphore(10)
    sources = addresses(network)

    def strike(source: str) -> None:
        try:
            outcome = attack.strike(target, source)
        except TimeoutError:
            outcome = "no answer"
        except OSError:
            outcome = "connection closed"
        finally:
            places.release()
        tally.add(attack.name, outcome)

    running: list[threading.Thread] = []
    while not over.wait(random.expovariate(attack.per_second)):
        if places.acquire(blocking=False):
            running = [thread for thread in running if thread.is_alive()]
            running.append(threading.Thread(target=strike, args=(next(sources),), daemon=True))
            running[-1].start()
    for thread in running:
        thread.join()


# Ways to send


def connect(target: Target, source: str) -> socket.socket:
    """Return a connection from the given address."""
    return socket.create_connection(
        ("127.0.0.1", target.port), timeout=ANSWER_SECONDS, source_address=(source, 0)
    )


def send(target: Target, source: str, data: bytes) -> str:
    """Send bytes, and return the status of the answer."""
    with connect(target, source) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)  # The service may refuse before everything was sent.
        return _status(connection)


def _status(connection: socket.socket) -> str:
    received = connection.recv(64 * KIB)
    if not received:
        return "connection closed"
    status = received[9:12].decode("ascii", "replace")
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(64 * KIB):
            continue
    return status


def drip(target: Target, source: str, begin: bytes, piece: bytes, *, seconds: float) -> str:
    """Send a beginning, then one piece every second until the service closes or time is up."""
    with connect(target, source) as connection:
        connection.sendall(begin)
        connection.settimeout(1.0)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                received = connection.recv(64 * KIB)
            except TimeoutError:
                connection.sendall(piece)
                continue
            return received[9:12].decode("ascii", "replace") or "connection closed"
    return "dripped"


def post(path: str, body: bytes, *, media_type: str = "application/json", **headers: str) -> bytes:
    """Return a POST with a body."""
    lines = tuple(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())
    return request_bytes("POST", path, headers=(f"Content-Type: {media_type}", *lines), body=body)


def get(path: str, **headers: str) -> bytes:
    """Return a GET."""
    lines = tuple(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())
    return request_bytes("GET", path, headers=lines)


# Kinds


def _backslashes(target: Target, source: str) -> str:
    return send(target, source, post("/api/v1/auth/login", b'"' + b'\\"' * 32_000))


def _brackets(target: Target, source: str) -> str:
    return send(target, source, post("/api/v1/auth/register", b"[" * 64_000))


def _many_members(target: Target, source: str) -> str:
    members = b",".join(b'"m%d":0' % number for number in range(5_000))
    return send(target, source, post("/api/v1/auth/login", b"{" + members + b"}"))


def _large_form(target: Target, source: str) -> str:
    body = b"&".join(b"a%d=b" % number for number in range(200_000))
    return send(target, source, post("/console/sign-in", body, media_type=FORM))


def _chunked_upload(target: Target, source: str) -> str:
    head = request_bytes(
        "POST",
        "/console/sign-in",
        headers=(
            "Content-Type: multipart/form-data; boundary=b",
            "Transfer-Encoding: chunked",
        ),
    )
    begin = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    return send(
        target, source, head + b"%x\r\n%s\r\n" % (len(begin), begin) + chunk * 128 + b"0\r\n\r\n"
    )


def _forged_form(target: Target, source: str) -> str:
    body = b"username=admin&password=x&csrf_token=made-up"
    return send(target, source, post("/console/sign-in", body, media_type=FORM))


def _stalled_import(target: Target, source: str) -> str:
    begin = request_bytes(
        "POST",
        "/console/users/import",
        headers=("Content-Type: multipart/form-data; boundary=b", "Content-Length: 9000000"),
    )
    return drip(target, source, begin, b"x", seconds=40)


def _slow_head(target: Target, source: str) -> str:
    begin = b"GET /api/v1/health/live HTTP/1.1\r\nHost: localhost\r\n"
    return drip(target, source, begin, b"X-A: b\r\n", seconds=40)


def _slow_body(target: Target, source: str) -> str:
    begin = post("/api/v1/auth/login", b"", Content_Length="2000") + b'{"username": "'
    return drip(target, source, begin, b"a", seconds=40)


def _expectation(target: Target, source: str) -> str:
    begin = post("/api/v1/auth/login", b"", Content_Length="2000", Expect="100-continue")
    return drip(target, source, begin, b"a", seconds=40)


def _tiny_chunks(target: Target, source: str) -> str:
    begin = post("/api/v1/auth/login", b"", Transfer_Encoding="chunked") + b"1\r\n \r\n" * 5_000
    return drip(target, source, begin, b"1\r\n \r\n", seconds=40)


def _chunk_extension(target: Target, source: str) -> str:
    begin = post("/api/v1/auth/login", b"", Transfer_Encoding="chunked") + b"1;" + b"e" * 60_000
    return drip(target, source, begin, b"e", seconds=40)


def _short_body(target: Target, source: str) -> str:
    data = post("/api/v1/auth/login", b"", Content_Length="500") + b'{"username":"admin"}'
    with connect(target, source) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return _status(connection)


def _no_http(target: Target, source: str) -> str:
    return send(target, source, random.randbytes(2_000) + b"\r\n\r\n")


def _forged_token(target: Target, source: str) -> str:
    token = f"eyJhbGciOiJub25lIn0.{'e30' * random.randint(1, 2_000)}."
    return send(target, source, get("/api/v1/users/me", Authorization=f"Bearer {token}"))


def _ended_token(target: Target, source: str) -> str:
    token = f"Bearer {target.held.ended_token}"
    return send(target, source, get("/api/v1/users/me", Authorization=token))


def key_with_checksum(start: str) -> str:
    """Return a key that begins like this and has a made-up secret, with a correct checksum."""
    text = start + "".join(random.choices(DIGITS, k=KEY_SECRET_LENGTH))
    number, checksum = zlib.crc32(text.encode()), ""
    for _ in range(KEY_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(DIGITS))
        checksum = DIGITS[digit] + checksum
    return text + checksum


def _with_bearer(target: Target, source: str, credential: str) -> str:
    return send(target, source, get("/api/v1/auth/verify", Authorization=f"Bearer {credential}"))


def _for_token(target: Target, source: str, client_id: str, secret: str) -> str:
    form = f"grant_type=client_credentials&client_id={client_id}&client_secret={secret}"
    return send(target, source, post("/api/v1/auth/token", form.encode(), media_type=FORM))


def _false_checksum(target: Target, source: str) -> str:
    key = key_with_checksum(target.held.known_key)
    other = DIGITS[DIGITS.index(key[-1]) - 1]
    return _with_bearer(target, source, key[:-1] + other)


def _revoked_key(target: Target, source: str) -> str:
    return _with_bearer(target, source, target.held.revoked_key)


def _guessed_key_id(target: Target, source: str) -> str:
    # An id has 128 bits: the first of its digits is small.
    made_up = random.choice(DIGITS[:7]) + "".join(random.choices(DIGITS, k=KEY_ID_LENGTH - 1))
    return _with_bearer(
        target, source, key_with_checksum(target.held.known_key[:-KEY_ID_LENGTH] + made_up)
    )


def _guessed_key_secret(target: Target, source: str) -> str:
    return _with_bearer(target, source, key_with_checksum(target.held.known_key))


def _guessed_client_secret(target: Target, source: str) -> str:
    secret = key_with_checksum(target.held.known_key)
    return _for_token(target, source, target.held.known_client, secret)


def _revoked_client_secret(target: Target, source: str) -> str:
    return _for_token(target, source, target.held.own_client, target.held.revoked_key)


def _token_flood(target: Target, source: str) -> str:
    # All from one address, so that its limit is reached.
    source = f"{source.rpartition('.')[0]}.1"
    return _for_token(target, source, target.held.own_client, target.held.own_key)


def _guessed_password(target: Target, source: str) -> str:
    body = b'{"username": "user%d", "password": "a wrong password"}' % random.randint(0, 10**6)
    return send(target, source, post("/api/v1/auth/login", body))


def _costly_password(target: Target, source: str) -> str:
    password = "".join(random.choices("aA4@bBeE3sS5$oO0", k=128))
    body = f'{{"password": "{password}"}}'.encode()
    return send(target, source, post("/api/v1/auth/password-strength", body))


def _refused_refresh(target: Target, source: str) -> str:
    body = f'{{"refresh_token": "{target.held.ended_token}"}}'.encode()
    return send(target, source, post("/api/v1/auth/refresh", body))


def _reset_of_strangers(target: Target, source: str) -> str:
    body = b'{"email": "nobody%d@example.com"}' % random.randint(0, 10**9)
    return send(target, source, post("/api/v1/auth/reset-password", body))


def _odd_paths(target: Target, source: str) -> str:
    path = random.choice(
        [
            "/api/v1/roles/%00",
            "/console/audit?actor_id=%00",
            "/api/v1/users/?search=" + quote("%_\\" * 500),
            "/console/" + "a/" * 500,
            "/api/v1/users/?cursor=" + "A" * 4_000,
            "/console/sign-in?onward=/console/%0d%0aSet-Cookie:%20a=b",
            "/" + "%C0%AF" * 200,
        ]
    )
    return send(target, source, get(path))


def _anonymous_pages(target: Target, source: str) -> str:
    path = random.choice(["/console/sign-in", "/console/forgot-password", "/console/"])
    return send(target, source, get(path))


def _odd_headers(target: Target, source: str) -> str:
    filler = "a;q=0.1," * 1_000
    return send(
        target,
        source,
        get(
            "/api/v1/users/me",
            User_Agent="Mozilla/5.0 " + "(" * 4_000,
            Accept_Language=filler,
            Cookie="; ".join(f"c{number}=v" for number in range(400)),
            X_Correlation_ID="x" * 300,
        ),
    )


ATTACKS = [
    Attack(name="backslashes", per_second=2, strike=_backslashes),
    Attack(name="brackets", per_second=2, strike=_brackets),
    Attack(name="many members", per_second=2, strike=_many_members),
    Attack(name="large form", per_second=1, strike=_large_form),
    Attack(name="chunked upload", per_second=1, strike=_chunked_upload),
    Attack(name="forged form", per_second=5, strike=_forged_form),
    Attack(name="stalled import", per_second=1, strike=_stalled_import),
    Attack(name="slow head", per_second=1, strike=_slow_head),
    Attack(name="slow body", per_second=1, strike=_slow_body),
    Attack(name="expectation", per_second=1, strike=_expectation),
    Attack(name="tiny chunks", per_second=1, strike=_tiny_chunks),
    Attack(name="chunk extension", per_second=1, strike=_chunk_extension),
    Attack(name="short body", per_second=5, strike=_short_body),
    Attack(name="no HTTP", per_second=5, strike=_no_http),
    Attack(name="forged token", per_second=5, strike=_forged_token),
    Attack(name="ended token", per_second=5, strike=_ended_token),
    Attack(name="guessed password", per_second=1, strike=_guessed_password),
    Attack(name="false checksum", per_second=5, strike=_false_checksum),
    Attack(name="revoked key", per_second=5, strike=_revoked_key),
    Attack(name="guessed key id", per_second=5, strike=_guessed_key_id),
    Attack(name="guessed key secret", per_second=5, strike=_guessed_key_secret),
    Attack(name="guessed client secret", per_second=2, strike=_guessed_client_secret),
    Attack(name="revoked client secret", per_second=2, strike=_revoked_client_secret),
    Attack(name="token flood", per_second=5, strike=_token_flood),
    Attack(name="costly password", per_second=2, strike=_costly_password),
    Attack(name="refused refresh", per_second=5, strike=_refused_refresh),
    Attack(name="reset of strangers", per_second=2, strike=_reset_of_strangers),
    Attack(name="odd paths", per_second=5, strike=_odd_paths),
    Attack(name="anonymous pages", per_second=5, strike=_anonymous_pages),
    Attack(name="odd headers", per_second=5, strike=_odd_headers),
]


def main() -> int:
    """Attack until standard input is closed; print the answers to each attack."""
    parser = argparse.ArgumentParser(prog="python -m tests.abuse.hostile")
    parser.add_argument("--port", type=int, required=True)
    os.nice(LOWEST_PRIORITY)
    held = Held(**json.loads(os.environ["HELD"]))
    target = Target(port=parser.parse_args().port, held=held)
    over, tally = threading.Event(), Tally()
    attackers = threading.Thread(target=run_attacks, args=(target, ATTACKS, over, tally))
    attackers.start()
    sys.stdin.read()
    over.set()
    attackers.join()
    print(json.dumps(tally.answers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
