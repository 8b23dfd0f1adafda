"""examples/verify_tokens.py, beside the service as it starts by itself."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from tests.examples.conftest import (
    ADMINISTRATOR,
    FAST,
    PASSWORD,
    StartProgram,
)
from tests.support.gunicorn import GunicornService, add_administrator
from tests.support.polling import wait_until
from tests.support.ports import free_port


@pytest.fixture(scope="module")
def service() -> Iterator[GunicornService]:
    with GunicornService(FAST) as service:
        add_administrator(service, PASSWORD)
        yield service


@pytest.fixture
def media(service: GunicornService, start_program: StartProgram) -> str:
    port = free_port()
    start_program("verify_tokens.py", USERS_URL=service.base_url, PORT=str(port))
    url = f"http://127.0.0.1:{port}/"
    wait_until(lambda: call("GET", url)[0] == 401)
    return url


def call(method: str, url: str, *, token: str | None = None, body: Any = None) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, method=method, headers=headers, data=data)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read() or "null")
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.loads(exc.read() or "null")
    except OSError:
        return 0, None


def kid_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def log_in(service: GunicornService) -> dict[str, Any]:
    body = {"username": ADMINISTRATOR, "password": PASSWORD}
    status, pair = call("POST", f"{service.base_url}/api/v1/auth/login", body=body)
    assert status == 200
    found: dict[str, Any] = pair
    return found


def test_a_good_token_is_believed_and_no_other(service: GunicornService, media: str) -> None:
    pair = log_in(service)
    good = pair["access_token"]
    claims = jwt.decode(good, options={"verify_signature": False})
    header = {"kid": kid_of(good), "typ": "at+jwt"}

    def forged(**changes: Any) -> str:
        key = "a secret that the caller has made up by themselves"
        return jwt.encode(claims, key, algorithm="HS256", headers={**header, **changes})

    assert call("GET", media, token=good) == (200, {"user_id": pair["user"]["id"]})
    refused = [pair["refresh_token"], forged(), forged(kid="unknown"), good[:-8] + "AAAAAAAA", "x"]
    assert [call("GET", media, token=token)[0] for token in refused] == [401] * 5


def test_a_session_that_has_ended_counts_where_the_service_is_asked(
    service: GunicornService, media: str
) -> None:
    token = log_in(service)["access_token"]
    assert call("DELETE", media, token=token)[0] == 200

    status, _ = call("POST", f"{service.base_url}/api/v1/auth/logout", token=token)

    assert status == 204
    assert call("DELETE", media, token=token) == (401, {"error": "token_revoked"})
    # By the signature alone it is good until it expires: that is what the guide says.
    assert call("GET", media, token=token)[0] == 200


def test_a_permission_is_asked_for(service: GunicornService, media: str) -> None:
    admin = log_in(service)["access_token"]
    robin = {"username": "robin", "email": "robin@example.com", "password": PASSWORD}
    assert call("POST", f"{service.base_url}/api/v1/users/", token=admin, body=robin)[0] == 201
    body = {"username": "robin", "password": PASSWORD}
    _, pair = call("POST", f"{service.base_url}/api/v1/auth/login", body=body)

    assert call("DELETE", media, token=pair["access_token"])[0] == 403


@pytest.mark.parametrize(("last", "status"), [("media:delete", 200), ("media:read", 403)])
def test_permissions_that_a_token_omits_are_asked_for(
    service: GunicornService, media: str, last: str, status: int
) -> None:
    """Six roles of sixty permissions: through Gunicorn such a token was 431 at every request."""
    admin = log_in(service)["access_token"]
    name = last.replace(":", "-")
    roles = [f"{name}-{number}" for number in range(6)]
    for role in roles:
        permissions = [f"{role}-resource:action-{number:02d}" for number in range(59)]
        body = {"name": role, "permissions": [*permissions, last]}
        assert call("POST", f"{service.base_url}/api/v1/roles/", token=admin, body=body)[0] == 201
    holder = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
    body = {**holder, "roles": roles}
    assert call("POST", f"{service.base_url}/api/v1/users/", token=admin, body=body)[0] == 201
    login = {"username": name, "password": PASSWORD}
    _, pair = call("POST", f"{service.base_url}/api/v1/auth/login", body=login)
    token = pair["access_token"]

    assert "permissions" not in jwt.decode(token, options={"verify_signature": False})
    assert call("GET", f"{service.base_url}/api/v1/auth/me", token=token)[0] == 200
    assert call("GET", media, token=token) == (200, {"user_id": pair["user"]["id"]})
    assert call("DELETE", media, token=token)[0] == status


def challenge_of(url: str, token: str) -> tuple[int, dict[str, Any], str]:
    """Return the status, the body and the challenge of a refused deletion."""
    request = urllib.request.Request(
        url, method="DELETE", headers={"Authorization": f"Bearer {token}"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    with refused.value as error:
        return error.code, json.loads(error.read()), error.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"STEP_UP_SECONDS": "0"}, 'max_age="0"'),
        ({"STEP_UP_LEVEL": "aal2"}, 'max_age="900", acr_values="aal2"'),
    ],
)
def test_deleting_needs_a_recent_and_strong_authentication(
    service: GunicornService,
    start_program: StartProgram,
    media: str,
    settings: dict[str, str],
    wanted: str,
) -> None:
    port, token = free_port(), log_in(service)["access_token"]
    start_program("verify_tokens.py", USERS_URL=service.base_url, PORT=str(port), **settings)
    strict = f"http://127.0.0.1:{port}/"
    wait_until(lambda: call("GET", strict)[0] == 401)

    status, body, challenge = challenge_of(strict, token)

    assert (status, body["error"]) == (401, "insufficient_user_authentication")
    assert challenge.startswith('Bearer error="insufficient_user_authentication", ')
    assert challenge.endswith(wanted)
    assert call("GET", strict, token=token)[0] == 200  # The token itself stays good.
    assert call("DELETE", media, token=token)[0] == 200


def test_the_tokens_of_a_step_up_are_accepted(service: GunicornService, media: str) -> None:
    former = log_in(service)["access_token"]
    url = f"{service.base_url}/api/v1/auth/step-up"

    status, pair = call("POST", url, token=former, body={"password": PASSWORD})

    assert status == 200
    assert call("DELETE", media, token=pair["access_token"])[0] == 200
    assert call("DELETE", media, token=former) == (401, {"error": "token_revoked"})


def test_an_outage_of_the_service_is_no_401(service: GunicornService, media: str) -> None:
    token = log_in(service)["access_token"]
    assert call("GET", media, token=token)[0] == 200

    service.kill()
    answers = [call(method, media, token=token)[0] for method in ("DELETE", "GET")]
    service.start()

    assert answers == [503, 200]


def test_tokens_of_a_new_key_are_believed(service: GunicornService, media: str) -> None:
    old = log_in(service)["access_token"]
    assert call("GET", media, token=old)[0] == 200

    rotated = service.command("keys", "rotate")
    assert rotated.exit_code == 0, rotated.output

    fresh: list[str] = []

    def another_key_signs() -> bool:
        fresh[:] = [log_in(service)["access_token"]]
        return kid_of(fresh[0]) != kid_of(old)

    wait_until(another_key_signs)
    assert [call("GET", media, token=token)[0] for token in (*fresh, old)] == [200, 200]
