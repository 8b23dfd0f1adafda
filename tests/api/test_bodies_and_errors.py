"""Every kind of error returns a problem document (RFC 9457)."""

import gzip
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.users import LogIn, MakeUser

MEMBERS = {"type", "title", "status", "detail", "instance", "code", "correlation_id"}
STRENGTH = "/api/v1/auth/password-strength"


def send(client: JsonClient, raw: bytes, content_type: str = "application/json") -> Any:
    return client.post(STRENGTH, data=raw, content_type=content_type)


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def assert_problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.content_type == "application/problem+json"
    problem: dict[str, Any] = json.loads(answer.data)
    assert MEMBERS <= problem.keys()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["correlation_id"] == answer.headers["X-Correlation-ID"]
    return problem


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"{'password': 'x'}",
        b'{"password": NaN}',
        b'{"password": Infinity}',
        b'{"password": 1e999}',
        b'{"password": "a", "password": "b"}',
        b'{"password": "\xff"}',
        b'\xef\xbb\xbf{"password": "x"}',
        '{"password": "x"}'.encode("utf-16"),
        b'{"password": "x"} trailing',
        b'{"password": ' + nested(32) + b"}",
        b"[" * 60_000,
        b'{"a":' * 12_000,
        b"9" * 5000,
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_what_is_no_proper_json_is_400(client: JsonClient, raw: bytes) -> None:
    assert_problem(send(client, raw), 400, "malformed_json")


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b"7",
        b"null",
        b'"text"',
        b'{"password": ' + nested(31) + b"}",
        b'{"password": "\\ud800"}',
        b'{"password": "tab\\tbed"}',
        b'{"password": "x", "more": 1}',
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_json_of_another_shape_is_422(client: JsonClient, raw: bytes) -> None:
    problem = assert_problem(send(client, raw), 422, "validation_failed")

    assert problem["errors"]
    assert all({"field", "message", "code"} == error.keys() for error in problem["errors"])


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "multipart/form-data"])
def test_another_media_type_is_415(client: JsonClient, content_type: str) -> None:
    assert_problem(send(client, b"{}", content_type), 415, "unsupported_media_type")


def test_a_large_body_is_413_with_a_length_and_chunked_alike(client: JsonClient) -> None:
    raw = json.dumps({"password": "x" * 70_000}).encode()

    chunked = client.post(
        STRENGTH,
        input_stream=io.BytesIO(raw),
        content_type="application/json",
        environ_overrides={"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"},
    )

    assert_problem(send(client, raw), 413, "body_too_large")
    assert_problem(chunked, 413, "body_too_large")


def test_a_body_of_exactly_the_limit_is_read(client: JsonClient) -> None:
    raw = b'{"password": "x"' + b" " * (64 * 1024 - 17) + b"}"
    assert len(raw) == 64 * 1024

    assert send(client, raw).status_code == 200


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/v1/users/nonsense", "/api/v1/auth/login/extra", "//api/v1/users"]
)
def test_an_unknown_path_is_404(client: JsonClient, path: str) -> None:
    assert_problem(client.get(path), 404, "not_found")


def test_a_wrong_method_is_405_and_lists_the_allowed_ones(client: JsonClient) -> None:
    answer = client.get("/api/v1/auth/login")

    assert_problem(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["Allow"]


def test_an_unknown_query_parameter_is_422(
    client: JsonClient, make_user: MakeUser, log_in: LogIn
) -> None:
    admin = log_in(make_user("boss", roles=["admin"]))

    assert_problem(client.get("/api/v1/health/?x=1"), 422, "validation_failed")
    assert_problem(admin.get("/api/v1/users/?colour=red"), 422, "validation_failed")
    assert_problem(admin.get("/api/v1/users/?page=1&page=2"), 422, "validation_failed")


def test_a_crash_is_500_without_details(make_app: Callable[..., Flask]) -> None:
    app = make_app()

    def crash() -> str:
        raise RuntimeError("secret detail of the inside")

    app.add_url_rule("/crash", view_func=crash)
    answer = JsonClient(app).get("/crash")

    assert_problem(answer, 500, "internal_error")
    assert b"secret detail" not in answer.data


@pytest.mark.parametrize("host", ["", "a b", "exa<mple", "host:port", "[::1"])
def test_a_broken_host_is_400(client: JsonClient, host: str) -> None:
    answer = client.get("/", environ_overrides={"HTTP_HOST": host})

    assert_problem(answer, 400, "malformed_request")


def test_only_trusted_hosts_are_answered(make_app: Callable[..., Flask]) -> None:
    client = JsonClient(make_app(TRUSTED_HOSTS="id.example.com,.internal.example.com"))

    def status(host: str) -> int:
        return int(client.get("/", headers={"Host": host}).status_code)

    assert status("id.example.com") == 200
    assert status("id.example.com:8000") == 200
    assert status("a.internal.example.com") == 200
    assert status("evil.example.com") == 400
    assert status("id.example.com.evil.org") == 400


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("path", "host", "expected"),
    [
        ("/api/v1/health/live", "10.1.2.3:8000", 200),
        ("/api/v1/health/ready", "[2001:db8::7]:8000", 200),
        ("/metrics", "10.1.2.3:8000", 200),
        ("/", "10.1.2.3:8000", 400),
        ("/api/v1/nothing", "10.1.2.3", 400),
        ("/api/v1/health/live", "evil.example.com", 400),
        ("/metrics", "evil.example.com", 400),
    ],
)
def test_probes_and_prometheus_call_by_address(
    make_app: Callable[..., Flask], path: str, host: str, expected: int
) -> None:
    """A platform calls pods by address; with TRUSTED_HOSTS each probe failed."""
    client = JsonClient(make_app(TRUSTED_HOSTS="id.example.com"))

    assert client.get(path, headers={"Host": host}).status_code == expected


@pytest.mark.parametrize("header", ["X-Correlation-ID", "X-Request-ID"])
def test_the_callers_correlation_id_is_used(client: JsonClient, header: str) -> None:
    answer = client.get("/", headers={header: "job-7.retry_2"})

    assert answer.headers["X-Correlation-ID"] == "job-7.retry_2"


@pytest.mark.parametrize("value", ["a b", "x" * 65, "<script>", "é"])
def test_an_unfit_correlation_id_is_replaced(client: JsonClient, value: str) -> None:
    answer = client.get("/", headers={"X-Correlation-ID": value})

    assert answer.headers["X-Correlation-ID"] != value
    assert len(answer.headers["X-Correlation-ID"]) == 32


@pytest.mark.parametrize("path", ["/", "/nothing", "/api/v1/auth/me", "/docs", "/openapi.json"])
def test_every_answer_has_the_security_headers(client: JsonClient, path: str) -> None:
    headers = client.get(path).headers

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "Strict-Transport-Security" not in headers


def test_https_is_insisted_on_where_it_is_used(make_app: Callable[..., Flask]) -> None:
    client = JsonClient(make_app(PUBLIC_BASE_URL="https://id.example.com"))

    assert "max-age=" in client.get("/").headers["Strict-Transport-Security"]


JSON_LOGIN = '{"username":"robin","password":"wrong-one-1"}'


@pytest.mark.parametrize(
    ("encoding", "hint"),
    [
        ("utf-8-sig", "byte order mark"),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-16 or UTF-32"),
    ],
)
def test_json_in_another_encoding_is_refused_with_a_hint(
    client: JsonClient, encoding: str, hint: str
) -> None:
    """PowerShell and Notepad write such files; the error did not name the encoding."""
    answer = client.post(
        "/api/v1/auth/login", data=JSON_LOGIN.encode(encoding), content_type="application/json"
    )

    problem = answer.get_json()
    assert (answer.status_code, problem["code"]) == (400, "malformed_json")
    assert hint in problem["detail"] and "Send JSON as UTF-8" in problem["detail"]


def test_the_first_of_many_unknown_members_are_reported(client: JsonClient) -> None:
    """5000 unknown members cost 40 ms of a worker and a response of 340 KB."""
    raw = json.dumps({f"m{number}": 0 for number in range(5000)}).encode()

    problem = assert_problem(send(client, raw), 422, "validation_failed")

    reported = {error["field"]: error["code"] for error in problem["errors"]}
    assert reported == {"password": "required"} | {f"m{n}": "unknown_field" for n in range(20)}


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "deflate, gzip", "br", "zstd", "unknown"])
def test_a_compressed_body_is_refused_with_a_hint(client: JsonClient, coding: str) -> None:
    answer = client.post(
        "/api/v1/auth/login",
        data=gzip.compress(JSON_LOGIN.encode()),
        content_type="application/json",
        headers={"Content-Encoding": coding},
    )

    problem = answer.get_json()
    assert (answer.status_code, problem["code"]) == (415, "unsupported_media_type")
    assert "Content-Encoding" in problem["detail"]
    assert answer.headers["Accept-Encoding"] == "identity"


def test_a_compressed_import_is_refused_with_a_hint(make_user: MakeUser, log_in: LogIn) -> None:
    admin = log_in(make_user("boss", roles=["admin"]))

    answer = admin.post(
        "/api/v1/users/import",
        data=gzip.compress(b"username,email\nada,ada@example.com\n"),
        content_type="text/csv",
        headers={"Content-Encoding": "gzip"},
    )

    assert (answer.status_code, "Content-Encoding" in answer.get_json()["detail"]) == (415, True)


def test_the_content_encoding_identity_is_accepted(client: JsonClient) -> None:
    answer = client.post(
        "/api/v1/auth/login",
        data=JSON_LOGIN,
        content_type="application/json",
        headers={"Content-Encoding": "identity"},
    )

    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("raw", "detail"),
    [
        (b" \n", "The body is empty. This endpoint accepts JSON."),
        (b'{"a": 1,\n "b" 2}', "Invalid JSON at line 2, column 6."),
        (b'{"a": 1, "a": 2}', "An object has two members of the same name."),
        (b'{"a": NaN}', "NaN is not a JSON value."),
        (b'{"a": 1e999}', "A number is out of range."),
        (b'{"a": "\xe9"}', "The body is not UTF-8."),
    ],
)
def test_malformed_json_is_explained(client: JsonClient, raw: bytes, detail: str) -> None:
    assert assert_problem(send(client, raw), 400, "malformed_json")["detail"] == detail


def test_a_charset_other_than_utf_8_is_explained(client: JsonClient) -> None:
    answer = send(client, b"{}", "application/json; charset=utf-16")

    detail = assert_problem(answer, 415, "unsupported_media_type")["detail"]
    assert detail == "This charset is not supported. Send UTF-8."


@pytest.mark.parametrize("path", ["/api/v1/users", "/api/v1/roles", "/api/v1/health"])
def test_a_collection_without_its_slash_lists_its_methods_too(
    client: JsonClient, path: str
) -> None:
    """GET was served, but a method that is not allowed got 404 in place of 405."""
    with_slash = client.request("DELETE", f"{path}/")
    without = client.request("DELETE", path)
    options = [client.request("OPTIONS", each) for each in (path, f"{path}/")]

    assert_problem(without, 405, "method_not_allowed")
    assert without.headers["Allow"] == with_slash.headers["Allow"]
    assert [set(answer.allow) for answer in options] == [set(with_slash.allow)] * 2


def test_a_superfluous_slash_is_explained(client: JsonClient) -> None:
    nearly = client.get("/api/v1/users/me/")
    nothing = client.get("/api/v1/nothing/")

    detail = assert_problem(nearly, 404, "not_found")["detail"]
    assert detail == "The path does not exist. The same path without the trailing slash exists."
    assert assert_problem(nothing, 404, "not_found")["detail"] == "Not Found"


def test_an_offset_whose_plus_was_not_encoded_is_explained(
    make_user: MakeUser, log_in: LogIn
) -> None:
    """A + in a query string is a blank, so a correct time was rejected without explanation."""
    admin = log_in(make_user("boss", roles=["admin"]))

    lost = admin.get("/api/v1/users/?created_after=2026-01-01T00:00:00+01:00")
    wrong = admin.get("/api/v1/users/?created_after=2026-01-01")

    (error,) = assert_problem(lost, 422, "validation_failed")["errors"]
    assert error["message"].endswith("In a URL, write + as %2B.")
    assert "%2B" not in wrong.text
