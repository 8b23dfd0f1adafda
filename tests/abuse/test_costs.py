"""The cost of an anonymous request: linear in its size, and small.

Each parser that reads input before authentication is measured at 32 KiB and at 64 KiB, by the CPU
time of the serving thread. Other work on the machine only ever adds to a measurement, because
cores and caches are shared. Therefore both sizes are measured in turn, the least of all rounds
counts, and measuring goes on until the cost is within its bounds. A parser that is not linear never
comes within them, however often it is measured. The garbage collector is off: its runs do not
belong to one request.
"""

import gc
import string
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import orjson
import pytest
from flask import Flask
from marshmallow import Schema, fields
from werkzeug.test import EnvironBuilder

from tests.support.databases import SqliteDatabase
from tests.support.deployments import ENVIRONMENT, build_app, disconnect, migrate_with
from userapi.api.blueprint import declarations_of
from userapi.clock import ManualClock
from userapi.sessions.devices import device_label
from userapi.sessions.service import USER_AGENT_LENGTH

SIZE = 32 * 1024
MAX_RATIO = 3.0
# A ratio counts only after so many rounds: noise in the only measurement of the smaller size would
# hide a parser that is not linear.
MIN_ROUNDS = 5
MAX_ROUNDS = 30
# Below this a difference between the sizes is noise.
MIN_MEASURED_SECONDS = 0.015
# The documented limit is 50 ms for 64 KiB. A machine that runs tests may be slower than a server.
MAX_SECONDS = 0.1
# This many additions in Python take MAX_SECONDS on an idle core. On a slow or busy machine they
# take longer, and the limit grows with them.
ADDITIONS = 2_000_000

Body = Callable[[int], bytes]
Header = Callable[[int], str]

JSON_BODIES: dict[str, Body] = {
    "an open string of escapes": lambda n: b'"' + b'\\"' * (n // 2),
    "an open string of backslashes": lambda n: b'"' + b"\\" * n,
    "quotes": lambda n: b'"' * n,
    "open strings after commas": lambda n: b'",' * (n // 2),
    "open arrays": lambda n: b"[" * n,
    "open objects": lambda n: b'{"a":' * (n // 5),
    "closed brackets": lambda n: b"]" * n,
    "empty arrays": lambda n: b"[" + b"[]," * (n // 3) + b"[]]",
    "numbers": lambda n: b"[" + b"1," * (n // 2) + b"1]",
    "one number": lambda n: b"1" * n,
    "long numbers": lambda n: b"[" + (b"1" * 4300 + b",") * (n // 4301) + b"1]",
    "a long fraction": lambda n: b"0." + b"1" * n,
    "a long fraction half way": lambda n: b"9007199254740993" + b"0" * n + b"1e-%d" % (n + 1),
    "spaces": lambda n: b"[" + b" " * n,
    "surrogates": lambda n: b'{"password":"' + b"\\ud800" * (n // 6) + b'"}',
    "members": lambda n: b"{" + b",".join(b'"%05d":0' % i for i in range(n // 10)) + b"}",
    "one member repeated": lambda n: b"{" + b'"a":0,' * (n // 6) + b'"a":0}',
    "invalid UTF-8": lambda n: b'"' + b"\xff" * n + b'"',
}
FORM_BODIES: dict[str, Body] = {
    "ampersands": lambda n: b"&" * n,
    "fields": lambda n: b"a=1&" * (n // 4),
    "empty fields": lambda n: b"=&" * (n // 2),
    "percent signs": lambda n: b"token=" + b"%" * n,
    "escapes": lambda n: b"token=" + b"%41" * (n // 3),
    "invalid UTF-8": lambda n: b"token=" + b"%ff" * (n // 3),
    "plus signs": lambda n: b"token=" + b"+" * n,
    "semicolons": lambda n: b"token=1;" * (n // 8),
    "equals signs": lambda n: b"=" * n,
}
MULTIPART_BODIES: dict[str, Body] = {
    "no boundary": lambda n: b"x" * n,
    "line ends": lambda n: b"\r\n" * (n // 2),
    "half boundaries": lambda n: b"\r\n--" * (n // 4),
    "boundaries": lambda n: b"--b\r\n" * (n // 5),
    "a head that does not end": lambda n: b"--b\r\nContent-Disposition: " + b"a" * n,
    "heads": lambda n: b"--b\r\n" + b"A: b\r\n" * (n // 6),
    "parameters": lambda n: b"--b\r\nContent-Disposition: form-data" + b"; a=b" * (n // 5),
    "quoted": lambda n: b'--b\r\nContent-Disposition: form-data; name="' + b'\\"' * (n // 2),
    "parts": lambda n: b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * (n // 55),
    "a part that does not end": lambda n: (
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"\r" * n
    ),
}
# Text is a repetition of one of these, with characters that JSON escapes or not.
TEXTS: dict[str, str] = {
    "letters": "a",
    "digits": "1",
    "at signs": "@",
    "addresses": "a@",
    "dots": ".",
    "labels": "a.",
    "an address of labels": "a@b.",
    "hyphens": "-",
    "punycode": "xn--a.",
    "quotes": '"',
    "backslashes": "\\",
    "spaces": " ",
    "tabs": "\t",
    "parentheses": "(",
    "commas": ",",
    "colons": ":",
    "slashes": "/",
    "NUL": "\0",
    "combining marks": "\u0301\u0323",
    "full width": "\uff21",
    "ligatures": "\ufdfa",
    "Arabic digits": "\u0661",
    "joiners": "\u200d",
    "emoji": "\U0001f469\u200d",
    "leet": "4@3$1!0",
    "a sequence": "abcdefghijklmnopqrstuvwxyz0123456789",
    "a keyboard": "qwertyuiopasdfghjklzxcvbnm",
    "dates": "1.1.2001",
    "a word": "password",
    "base64": "eyJh",
    "JWT": "eyJh.",
}
HEADERS: dict[str, dict[str, Header]] = {
    "Authorization": {
        "no scheme": lambda n: "a" * n,
        "spaces": lambda n: "Bearer" + " " * n + "x",
        "letters": lambda n: "Bearer " + "a" * n,
        "dots": lambda n: "Bearer " + "." * n,
        "parts": lambda n: "Bearer " + "a." * (n // 2),
        "a long head": lambda n: "Bearer " + "e30" * (n // 3) + ".e30.e30",
        "a long body": lambda n: "Bearer e30." + "e30" * (n // 3) + ".e30",
        "a deep head": lambda n: "Bearer " + "W1tb" * (n // 4) + ".e30.e30",
        "an open string": lambda n: "Bearer Ilwi" + "XCJc" * (n // 4) + ".e30.e30",
        "a client": lambda n: "Basic " + "YTph" * (n // 4),
    },
    "Cookie": {
        "letters": lambda n: "console=" + "a" * n,
        "pairs": lambda n: "a=b; " * (n // 5),
        "semicolons": lambda n: ";" * n,
        "equals signs": lambda n: "=" * n,
        "quotes": lambda n: 'console="' + '\\"' * (n // 2),
        "escapes": lambda n: 'console="' + "\\101" * (n // 4) + '"',
        "parts": lambda n: "console=" + "a." * (n // 2),
        "compressed": lambda n: "console=.eJw" + "a" * n + ".aaaaaa.a",
    },
    "X-Forwarded-For": {
        "commas": lambda n: "," * n,
        "addresses": lambda n: "1.2.3.4, " * (n // 9),
        "brackets": lambda n: "[" * n,
        "digits": lambda n: "1" * n,
        "dots": lambda n: "1." * (n // 2),
        "a port": lambda n: "[" + ":" * n + "]:1",
        "a zone": lambda n: "fe80::1%" + "a" * n,
    },
    "X-Forwarded-Proto": {"commas": lambda n: "https," * (n // 6)},
    "X-Correlation-ID": {"letters": lambda n: "a" * n, "others": lambda n: "a" * n + "!"},
    "X-Request-ID": {"letters": lambda n: "a" * n},
    "traceparent": {"digits": lambda n: "0" * n, "hyphens": lambda n: "-" * n},
    "tracestate": {"pairs": lambda n: "a=b," * (n // 4)},
    "If-Match": {
        "quotes": lambda n: '"' * n,
        "commas": lambda n: "," * n,
        "tags": lambda n: '"a",' * (n // 4),
        "open": lambda n: 'W/"' + "a" * n,
        "weak": lambda n: "W/" * (n // 2),
    },
    "If-None-Match": {"tags": lambda n: '"a", ' * (n // 5), "spaces": lambda n: " " * n + "x"},
    "If-Modified-Since": {"digits": lambda n: "1" * n, "commas": lambda n: "Mon, " * (n // 5)},
    "Range": {"ranges": lambda n: "bytes=" + "0-1," * (n // 4), "digits": lambda n: "1" * n},
    "Idempotency-Key": {"letters": lambda n: "a" * n},
    "User-Agent": {
        "letters": lambda n: "a" * n,
        "Mozilla": lambda n: "Mozilla/5.0 (" * (n // 13),
        "versions": lambda n: "Chrome/1." + "1." * (n // 2),
        "semicolons": lambda n: "(Linux; " + "; " * (n // 2),
        "spaces": lambda n: "Mozilla" + " " * n + "x",
    },
    "Accept": {
        "ranges": lambda n: "a/b," * (n // 4),
        "qualities": lambda n: "a/b;q=0.1," * (n // 10),
        "parameters": lambda n: "a/b" + ";a=b" * (n // 4),
        "quotes": lambda n: 'a/b;a="' + '\\"' * (n // 2),
        "slashes": lambda n: "/" * n,
    },
    "Accept-Language": {"tags": lambda n: "de," * (n // 3), "hyphens": lambda n: "a-" * (n // 2)},
    "Accept-Encoding": {"names": lambda n: "gzip," * (n // 5)},
    "Host": {
        "letters": lambda n: "a" * n,
        "dots": lambda n: "a." * (n // 2),
        "colons": lambda n: ":" * n,
        "brackets": lambda n: "[" + ":" * n + "]",
        "port": lambda n: "a:" + "1" * n,
    },
    "Origin": {"letters": lambda n: "https://" + "a" * n, "dots": lambda n: "a." * (n // 2)},
    "Access-Control-Request-Headers": {
        "names": lambda n: "a," * (n // 2),
        "spaces": lambda n: "a" + " " * n + ",",
        "ours": lambda n: "If-Match, " * (n // 10),
    },
    "Referer": {"slashes": lambda n: "https://" + "/" * n},
    "Content-Type": {
        "letters": lambda n: "a" * n,
        "parameters": lambda n: "application/json" + ";a=b" * (n // 4),
        "semicolons": lambda n: "application/json" + ";" * n,
        "quotes": lambda n: 'application/json;a="' + '\\"' * (n // 2),
        "continuations": lambda n: "application/json" + ";a*0*=b" * (n // 7),
        "a charset": lambda n: "application/json;charset=" + "a" * n,
        "a boundary": lambda n: "multipart/form-data;boundary=" + "a" * n,
    },
    "Content-Length": {"digits": lambda n: "1" * n},
    "HX-Target": {"letters": lambda n: "a" * n},
}
QUERIES: dict[str, Header] = {
    "ampersands": lambda n: "&" * n,
    "fields": lambda n: "a=1&" * (n // 4),
    "one field": lambda n: "onward=/console/" + "a" * n,
    "slashes": lambda n: "onward=/console" + "/" * n,
    "percent signs": lambda n: "onward=/console/" + "%" * n,
    "escapes": lambda n: "onward=/console/" + "%0d" * (n // 3),
    "semicolons": lambda n: ";" * n,
    "plus signs": lambda n: "+" * n,
    "a cursor": lambda n: "cursor=" + "a" * n,
    "sorts": lambda n: "sort=" + "a," * (n // 2),
}
PATHS: dict[str, Header] = {
    "letters": lambda n: "/" + "a" * n,
    "slashes": lambda n: "/" * n,
    "segments": lambda n: "/api/v1" + "/a" * (n // 2),
    "a role": lambda n: "/api/v1/roles/" + "a" * n,
    "a user": lambda n: "/api/v1/users/" + "0-" * (n // 2),
    "a page": lambda n: "/console/" + "a/" * (n // 2),
    "dots": lambda n: "/console/static/" + "../" * (n // 3),
    "escapes": lambda n: "/api/v1/roles/" + "%00" * (n // 3),
}


@pytest.fixture(scope="module")
def guarded_app(tmp_path_factory: pytest.TempPathFactory, run_directory: Path) -> Iterator[Flask]:
    """Return the service as it is shipped, on SQLite: reading a request needs no database."""
    directory = tmp_path_factory.mktemp("costs")
    database = SqliteDatabase(
        directory / "service.sqlite3",
        run_directory=run_directory,
        migrate=migrate_with(run_directory / "instance"),
    )
    app = build_app(
        {
            **ENVIRONMENT,
            "DATABASE_URL": database.url,
            "RATE_LIMIT_ENABLED": "true",
            "RATE_LIMIT_DEFAULT": "1000000/minute",
            "RATE_LIMIT_LOGIN": "1000000/minute",
            "RATE_LIMIT_REGISTER": "1000000/minute",
            "RATE_LIMIT_REFRESH": "1000000/minute",
            "RATE_LIMIT_PASSWORD_RESET": "1000000/minute",
            "RATE_LIMIT_PASSWORD_STRENGTH": "1000000/minute",
            "TRUSTED_PROXY_COUNT": "1",
            "CORS_ORIGINS": "https://app.example",
            "LOCKOUT_THRESHOLD": "1000",
        },
        clock=ManualClock(),
        instance_dir=directory,
    )
    yield app
    disconnect(app)
    database.drop()


@pytest.fixture(autouse=True)
def collector_off() -> Iterator[None]:
    """Collect the garbage of earlier tests, then keep the collector out of the measurements."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@dataclass(slots=True)
class Cost:
    """The least CPU time of all measurements of one piece of work; infinite before the first."""

    work: Callable[[], object]
    seconds: float = float("inf")

    def measure(self) -> float:
        begun = time.thread_time()
        self.work()
        self.seconds = min(self.seconds, time.thread_time() - begun)
        return self.seconds


def add() -> int:
    """Do the work that takes MAX_SECONDS on an idle core."""
    total = 0
    for number in range(ADDITIONS):
        total += number & 1
    return total


def is_too_long(cost: Cost, limit: Cost) -> bool:
    """Return whether the work exceeds its limit, also in comparison with other work just now."""
    return cost.seconds > MAX_SECONDS and cost.seconds > limit.measure()


def answering(app: WSGIApplication, environ: WSGIEnvironment) -> Cost:
    """Return the cost of answering this request, not yet measured."""
    raw = environ["wsgi.input"].read()

    def answer() -> None:
        statuses: list[str] = []

        def start_response(status: str, *_: Any) -> Callable[[bytes], object]:
            statuses.append(status)
            return lambda _data: None

        copy = {**environ, "REMOTE_ADDR": "127.0.0.1", "wsgi.input": BytesIO(raw)}
        body = app(copy, start_response)
        for _ in body:
            pass
        getattr(body, "close", lambda: None)()
        assert statuses[0] < "500", statuses

    return Cost(answer)


def fault(app: WSGIApplication, request: Callable[[int], WSGIEnvironment]) -> str | None:
    """Return what is wrong with the cost of a request of a size; None if nothing is."""
    small, large = answering(app, request(SIZE)), answering(app, request(2 * SIZE))
    limit = Cost(add)
    for number in range(1, MAX_ROUNDS + 1):
        if large.measure() < MIN_MEASURED_SECONDS:
            return None
        small.measure()
        is_linear = number >= MIN_ROUNDS and large.seconds <= small.seconds * MAX_RATIO
        if is_linear and not is_too_long(large, limit):
            return None
    return f"{small.seconds * 1000:.1f} ms → {large.seconds * 1000:.1f} ms"


def posted(path: str, raw: bytes, content_type: str) -> WSGIEnvironment:
    return EnvironBuilder(path, method="POST", data=raw, content_type=content_type).get_environ()


def public_bodies(app: Flask) -> Iterator[tuple[str, Schema]]:
    """Return the path and the schema of every endpoint that reads a body of anybody."""
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        documented = declarations_of(view)
        if "POST" not in (rule.methods or ()) or getattr(view, "access", "") != "public":
            continue
        for argument in documented.get("arguments", {}).get("parameters", ()):
            if argument["in"] == "json":
                yield rule.rule, argument["schema"]


def public_forms(app: Flask) -> list[str]:
    """Return the paths of pages that accept a form, which each reads before authentication."""
    return sorted(
        rule.rule.replace("<uuid:user_id>", "0" * 8)
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith("console.") and "POST" in (rule.methods or ())
    )


@pytest.mark.thorough
def test_a_parser_that_is_not_linear_is_found() -> None:
    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        length = len(environ["wsgi.input"].read()) // 50
        for _ in range(length):
            for _ in range(length):
                pass
        start_response("200 OK", [])
        return []

    assert fault(answer, lambda n: posted("/", b"x" * n, "text/plain"))


@pytest.mark.parametrize("name", JSON_BODIES)
def test_reading_json_is_linear(guarded_app: Flask, name: str) -> None:
    make = JSON_BODIES[name]

    assert not fault(
        guarded_app,
        lambda n: posted("/api/v1/auth/password-strength", make(n - 64), "application/json"),
    )


@pytest.mark.thorough
@pytest.mark.parametrize("name", FORM_BODIES)
@pytest.mark.parametrize("path", ["/api/v1/auth/revoke", "/console/sign-in"])
def test_reading_a_form_is_linear(guarded_app: Flask, path: str, name: str) -> None:
    make = FORM_BODIES[name]

    assert not fault(
        guarded_app, lambda n: posted(path, make(n - 64), "application/x-www-form-urlencoded")
    )


@pytest.mark.parametrize("name", MULTIPART_BODIES)
def test_reading_multipart_is_linear(guarded_app: Flask, name: str) -> None:
    make = MULTIPART_BODIES[name]

    assert not fault(
        guarded_app,
        lambda n: posted("/console/sign-in", make(n - 64), "multipart/form-data; boundary=b"),
    )


@pytest.mark.thorough
def test_judging_every_field_of_strangers_is_linear(guarded_app: Flask) -> None:
    faults: dict[tuple[str, str, str], str | None] = {}
    bodies = list(public_bodies(guarded_app))

    for path, schema in bodies:
        names = [name for name, field in schema.fields.items() if isinstance(field, fields.String)]
        for name in names:
            for kind, text in TEXTS.items():

                def request(size: int) -> WSGIEnvironment:
                    times = (size - 1024) // len(orjson.dumps(text)[1:-1])
                    body = {other: "abcdefghijkl" for other in names} | {name: text * times}
                    return posted(path, orjson.dumps(body), "application/json")

                faults[path, name, kind] = fault(guarded_app, request)

    assert len(bodies) >= 9
    assert not {case: found for case, found in faults.items() if found}


@pytest.mark.thorough
@pytest.mark.parametrize("name", HEADERS)
def test_reading_a_header_is_linear(guarded_app: Flask, name: str) -> None:
    faults = {}
    for method, path in (
        ("GET", "/api/v1/auth/me"),
        ("PATCH", "/api/v1/users/me"),
        ("POST", "/api/v1/auth/register"),
        ("OPTIONS", "/api/v1/auth/login"),
        ("GET", "/console/sign-in"),
        ("POST", "/console/sign-in"),
        ("GET", "/console/static/console.css"),
        ("GET", "/openapi.json"),
    ):
        for kind, make in HEADERS[name].items():

            def request(size: int) -> WSGIEnvironment:
                environ = EnvironBuilder(path, method=method, data=b"{}").get_environ()
                variable = name.upper().replace("-", "_")
                if not variable.startswith("CONTENT_"):
                    variable = f"HTTP_{variable}"
                environ[variable] = make(size)
                return environ

            faults[method, path, kind] = fault(guarded_app, request)

    assert not {case: found for case, found in faults.items() if found}


@pytest.mark.thorough
@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.parametrize(
    "path", ["/api/v1/auth/me", "/api/v1/users/", "/api/v1/health/live", "/console/sign-in", "/"]
)
def test_reading_a_query_is_linear(guarded_app: Flask, path: str, name: str) -> None:
    make = QUERIES[name]

    assert not fault(
        guarded_app, lambda n: EnvironBuilder(path, query_string=make(n)).get_environ()
    )


@pytest.mark.parametrize("name", PATHS)
def test_finding_a_path_is_linear(guarded_app: Flask, name: str) -> None:
    make = PATHS[name]

    assert not fault(guarded_app, lambda n: EnvironBuilder(quote(make(n), "/%")).get_environ())


@pytest.mark.thorough
def test_naming_a_device_is_cheap_for_the_longest_user_agent() -> None:
    """Only a signed-in user lists devices, but each log-in writes the name of one."""
    parts = ["Mozilla/5.0 (", "Linux; ", "Android 1.", "; ", "Build/", "iPhone OS 1_", " ", "1."]
    parts += ["Chrome/1.", "Version/1.", "CFNetwork/1 ", "Windows NT ", "Opera/9 ", "HbbTV/1 ("]
    limit = Cost(add)

    def is_cheap(text: str) -> bool:
        # Labels are cached, so each measurement needs another text.
        endings = iter(string.ascii_letters)
        cost = Cost(lambda: device_label(text[: USER_AGENT_LENGTH - 1] + next(endings)))
        for _ in range(MAX_ROUNDS):
            cost.measure()
            if not is_too_long(cost, limit):
                return True
        return False

    texts = {one + two: (one + two) * 256 for one in parts for two in parts}
    texts |= {f"{one}, then {two}": one + two * 512 for one in parts for two in parts}
    assert {name for name, text in texts.items() if not is_cheap(text)} == set()
