"""The examples for Flask, FastAPI and Django, with a running service."""

import time
from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.gunicorn import GunicornService
from tests.support.polling import wait_until
from tests.support.proxy import FaultProxy
from userapi_client import Client, Tokens

from .conftest import People, StartServer, send, status_of

FLASK = ("-m", "flask", "--app", "flask_app", "run", "--port", "PORT")
FASTAPI = ("-m", "uvicorn", "fastapi_app:app", "--port", "PORT", "--log-level", "warning")
FASTAPI_CACHE_SECONDS = 5
DJANGO = (
    *("-m", "django", "runserver", "--noreload", "--skip-checks"),
    *("--settings", "django_site.settings", "--pythonpath", ".", "PORT"),
)


def refusal(method: str, url: str, *, token: str | None = None) -> tuple[int, str]:
    """Return the status and code of a problem document."""
    answer = send(method, url, token=token)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Correlation-ID"] == answer.json()["correlation_id"]
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(FLASK, id="flask"),
        pytest.param(FASTAPI, id="fastapi", marks=pytest.mark.thorough),
        pytest.param(DJANGO, id="django", marks=pytest.mark.thorough),
    ],
)
def test_an_example_lets_in_who_may_read(
    command: tuple[str, ...], service: GunicornService, people: People, start_server: StartServer
) -> None:
    url = start_server(*command, USERAPI_URL=service.base_url)
    reader, tokens = people.holding("media:read")
    _, everything = people.holding("media:*")
    _, nothing = people.holding("media:write")

    for path in ("/media", "/drf/media") if command is DJANGO else ("/media",):
        missing = send("GET", url + path)
        assert missing.headers["WWW-Authenticate"] == "Bearer"
        assert refusal("GET", url + path) == (401, "authentication_required")
        assert refusal("GET", url + path, token="made.up.token") == (401, "token_invalid")
        assert refusal("GET", url + path, token=tokens.refresh_token) == (401, "token_invalid")
        assert refusal("GET", url + path, token=nothing.access_token) == (403, "permission_denied")
        assert send("GET", url + path, token=nothing.access_token).json()["permission"] == (
            "media:read"
        )
        assert send("GET", url + path, token=tokens.access_token).json()["for"] == reader
        assert status_of("GET", url + path, token=everything.access_token) == 200


@pytest.mark.thorough
def test_flask_asks_where_it_says_fresh(
    service: GunicornService, admin: Client, people: People, start_server: StartServer
) -> None:
    url = start_server(*FLASK, USERAPI_URL=service.base_url)
    user, tokens = people.holding("media:*")
    _, others = people.holding("media:*")
    media, holiday = f"{url}/media", f"{url}/media/holiday.jpg"
    found = send("GET", media, token=tokens.access_token).json()
    assert found == {"for": user, "checked": "signature"}
    assert status_of("DELETE", holiday, token=tokens.access_token) == 204

    admin.users.suspend(user)

    assert status_of("GET", media, token=tokens.access_token) == 200
    assert refusal("DELETE", holiday, token=tokens.access_token) == (401, "token_revoked")

    service.kill()
    try:
        during = status_of("GET", media, token=others.access_token)
        outage = send("DELETE", holiday, token=others.access_token)
    finally:
        service.start()
    assert (during, outage.status_code, outage.json()["code"]) == (200, 503, "service_unavailable")
    assert int(outage.headers["Retry-After"]) >= 1
    assert status_of("DELETE", holiday, token=others.access_token) == 204


@pytest.mark.thorough
def test_fastapi_notices_a_revocation_within_its_seconds_and_offers_to_authorize(
    service: GunicornService, admin: Client, people: People, start_server: StartServer
) -> None:
    url = start_server(*FASTAPI, USERAPI_URL=service.base_url)
    user, tokens = people.holding("media:read")
    document = send("GET", f"{url}/openapi.json").json()
    assert document["paths"]["/media"]["get"]["security"] == [{"HTTPBearer": []}]
    assert send("GET", f"{url}/docs").status_code == 200

    # The example keeps this answer.
    assert status_of("GET", f"{url}/media", token=tokens.access_token) == 200
    kept_until = time.monotonic() + FASTAPI_CACHE_SECONDS

    admin.users.suspend(user)
    wait_until(lambda: time.monotonic() > kept_until)

    assert refusal("GET", f"{url}/media", token=tokens.access_token) == (401, "token_revoked")


@pytest.mark.thorough
def test_flask_answers_known_keys_while_the_service_hangs(
    service: GunicornService, people: People, start_server: StartServer
) -> None:
    """200 concurrent requests: those with a known key do not wait."""
    with FaultProxy("127.0.0.1", service.port) as proxy:
        url = start_server(*FLASK, USERAPI_URL=f"http://127.0.0.1:{proxy.port}")
        _, tokens = people.holding("media:read")
        assert status_of("GET", f"{url}/media", token=tokens.access_token) == 200
        made_up = with_another_key(tokens)
        proxy.black_hole()

        with ThreadPoolExecutor(40) as pool:
            good = [
                pool.submit(status_of, "GET", f"{url}/media", token=tokens.access_token)
                for _ in range(100)
            ]
            bad = [pool.submit(status_of, "GET", f"{url}/media", token=made_up) for _ in range(100)]
            assert {future.result(60) for future in good} == {200}
            assert {future.result(60) for future in bad} == {401}


def with_another_key(tokens: Tokens) -> str:
    """Return a token whose header names a key that does not exist."""
    claims = jwt.decode(tokens.access_token, options={"verify_signature": False})
    key = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(claims, key, algorithm="ES256", headers={"typ": "at+jwt", "kid": "made-up"})
