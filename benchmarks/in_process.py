"""Requests to the application of the working directory, within this process.

`benchmarks.versions` starts one such process for each version. It imports no other module of the
benchmarks, because those belong to another version of the application.

Reads lines with the name of an operation and a number of requests; replies to each with the wall
time and the CPU time of one request in microseconds.
"""

import io
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

API = "/api/v1"
READS = {
    "GET /auth/verify": f"{API}/auth/verify",
    "GET /users/me": f"{API}/users/me",
    "GET /users/ (50)": f"{API}/users/?page_size=50",
}
REFRESH = "POST /auth/refresh"
Send = Callable[[dict[str, Any]], bytes]


def main() -> None:
    """Serve until the input ends."""
    sys.path.insert(0, os.getcwd())
    from userapi import create_app

    app = create_app()
    send = sender(app)
    tokens = log_in(send)
    # Collections hit batches at random.
    import gc

    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        name, count = json.loads(line)
        if name == REFRESH:
            tokens, result = refreshed(send, tokens, count)
        else:
            result = read(send, READS[name], tokens["access_token"], count)
        print(json.dumps(result), flush=True)


def sender(app: Any) -> Send:
    """Return a function that sends a request as Gunicorn does, and returns the body."""

    def send(environ: dict[str, Any]) -> bytes:
        status: list[str] = []
        body = app(environ, lambda line, _headers, _error=None: status.append(line))
        try:
            text = b"".join(body)
        finally:
            body.close()
        if not status[0].startswith("200"):
            raise RuntimeError(f"{environ['PATH_INFO']}: {status[0]}: {text!r}")
        return text

    return send


def environment(
    path: str, *, token: str | None = None, body: bytes | None = None
) -> dict[str, Any]:
    """Return the variables of a request."""
    path, _, query = path.partition("?")
    variables: dict[str, Any] = {
        "REQUEST_METHOD": "GET" if body is None else "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "RAW_URI": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "127.0.0.1:8000",
        "HTTP_USER_AGENT": "benchmark",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body or b""),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if body is not None:
        variables |= {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body))}
    if token is not None:
        variables["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    return variables


def log_in(send: Send) -> dict[str, str]:
    """Return the tokens of the administrator."""
    credentials = {"username": "admin", "password": os.environ["BENCHMARK_PASSWORD"]}
    body = json.dumps(credentials).encode()
    tokens: dict[str, str] = json.loads(send(environment(f"{API}/auth/login", body=body)))
    return tokens


def read(send: Send, path: str, token: str, count: int) -> tuple[float, float]:
    """Send a GET request so many times; return the times of one request."""
    prepared = [environment(path, token=token) for _ in range(count)]
    wall, cpu = time.perf_counter(), time.process_time()
    for variables in prepared:
        send(variables)
    return per_request(wall, cpu, count)


def refreshed(
    send: Send, tokens: dict[str, str], count: int
) -> tuple[dict[str, str], tuple[float, float]]:
    """Refresh so many times; return the latest tokens and the times of one refresh."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        body = json.dumps({"refresh_token": tokens["refresh_token"]}).encode()
        tokens = json.loads(send(environment(f"{API}/auth/refresh", body=body)))
    return tokens, per_request(wall, cpu, count)


def per_request(wall: float, cpu: float, count: int) -> tuple[float, float]:
    """Return the wall time and the CPU time since these moments, per request in microseconds."""
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall / count * 1e6, cpu / count * 1e6


if __name__ == "__main__":
    main()
