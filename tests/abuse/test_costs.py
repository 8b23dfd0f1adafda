"""What a stranger's request costs: linear in its size, and little.

Each parser that reads something before anybody is authenticated is measured at 32 KiB and at
64 KiB. CPU time of the serving thread counts, so that a busy machine changes nothing; the best of
several runs counts. Collections of garbage do not belong to a request, so there are none.
"""

import gc
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from urllib.parse import quote
from wsgiref.types import WSGIEnvironment

import orjson
import pytest
from flask import Flask
from marshmallow import Schema, fields
from werkzeug.test import EnvironBuilder

from tests.support.deployments import Backend
from userapi.sessions.devices import device_label
from userapi.sessions.service import USER_AGENT_LENGTH

SIZE = 32 * 1024
RUNS = 5
MAX_RATIO = 3.0
# Below this a difference between the sizes is noise.
MIN_MEASURED_SECONDS = 0.015
# The promise is 50 ms for 64 KiB. Machines that run tests may be slower than those that serve.
MAX_SECONDS = 0.1

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
# What text may be made of, in characters that JSON escapes or not.
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


@pytest.fixture
def backend() -> Backend:
    """Return the database of this table: reading a request needs none."""
    return Backend.SQLITE


@pytest.fixture
def guarded_app(make_app: Callable[..., Flask]) -> Iterator[Flask]:
    """Return a service as it is shipped, with one that garbage does not disturb."""
    app = make_app(
        RATE_LIMIT_ENABLED="true",
        RATE_LIMIT_DEFAULT="1000000/minute",
        RATE_LIMIT_LOGIN="1000000/minute",
        RATE_LIMIT_REGISTER="1000000/minute",
        RATE_LIMIT_REFRESH="1000000/minute",
        RATE_LIMIT_PASSWORD_RESET="1000000/minute",
        RATE_LIMIT_PASSWORD_STRENGTH="1000000/minute",
        TRUSTED_PROXY_COUNT="1",
        CORS_ORIGINS="https://app.example",
        LOCKOUT_THRESHOLD="1000",
    )
    gc.collect()
    gc.disable()
    yield app
    gc.enable()


def seconds_of(app: Flask, environ: WSGIEnvironment) -> float:
    """Return the CPU time in which this thread answers a request: of one that is cheap, at once."""
    raw = environ["wsgi.input"].read()
    best = float("inf")
    for _ in range(RUNS):
        given: list[str] = []
        copy = {**environ, "REMOTE_ADDR": "127.0.0.1", "wsgi.input": BytesIO(raw)}
        begun = time.thread_time()
        answer = app(copy, lambda status, *_, given=given: given.append(status))
        for _ in answer:
            pass
        getattr(answer, "close", lambda: None)()
        best = min(best, time.thread_time() - begun)
        assert given[0] < "500", given
        if best < MIN_MEASURED_SECONDS:
            break
    return best


def fault(app: Flask, request: Callable[[int], WSGIEnvironment]) -> str | None:
    """Return what is wrong with the cost of a request of a size; None if nothing is."""
    large = seconds_of(app, request(2 * SIZE))
    if large < MIN_MEASURED_SECONDS:
        return None
    small = seconds_of(app, request(SIZE))
    if large > MAX_SECONDS:
        return f"{large * 1000:.0f} ms"
    if large > small * MAX_RATIO:
        return f"{small * 1000:.1f} ms → {large * 1000:.1f} ms"
    return None


def posted(path: str, raw: bytes, content_type: str) -> WSGIEnvironment:
    return EnvironBuilder(path, method="POST", data=raw, content_type=content_type).get_environ()


def public_bodies(app: Flask) -> Iterator[tuple[str, Schema]]:
    """Return the path and the schema of every endpoint that reads a body of anybody."""
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        documented = getattr(view, "_apidoc", {})
        if "POST" not in (rule.methods or ()) or getattr(view, "access", "") != "public":
            continue
        for argument in documented.get("arguments", {}).get("parameters", ()):
            if argument["in"] == "json":
                yield rule.rule, argument["schema"]


def public_forms(app: Flask) -> list[str]:
    """Return the paths of the pages that take a form; each reads it before it knows who asks."""
    return sorted(
        rule.rule.replace("<uuid:user_id>", "0" * 8)
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith("console.") and "POST" in (rule.methods or ())
    )


@pytest.mark.parametrize("name", JSON_BODIES)
def test_reading_json_is_linear(guarded_app: Flask, name: str) -> None:
    make = JSON_BODIES[name]

    assert not fault(
        guarded_app,
        lambda n: posted("/api/v1/auth/password-strength", make(n - 64), "application/json"),
    )


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


def test_naming_a_device_is_cheap_for_the_longest_user_agent() -> None:
    """Nobody is shown devices before a sign-in, but whoever signs in writes their name."""
    parts = ["Mozilla/5.0 (", "Linux; ", "Android 1.", "; ", "Build/", "iPhone OS 1_", " ", "1."]
    parts += ["Chrome/1.", "Version/1.", "CFNetwork/1 ", "Windows NT ", "Opera/9 ", "HbbTV/1 ("]
    device_label("Mozilla/5.0")

    def seconds(text: str) -> float:
        found = []
        for ending in "abc":
            begun = time.thread_time()
            device_label(text[: USER_AGENT_LENGTH - 1] + ending)
            found.append(time.thread_time() - begun)
        return min(found)

    texts = {one + two: (one + two) * 256 for one in parts for two in parts}
    texts |= {f"{one}, then {two}": one + two * 512 for one in parts for two in parts}
    assert {name for name, text in texts.items() if seconds(text) > MAX_SECONDS} == set()
