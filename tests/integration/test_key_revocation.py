"""A stolen signing key: `flask keys revoke`, on the command line and in running processes."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import jwt
import pytest
from click.testing import Result
from flask import Flask

from tests.blackbox.test_as_shipped import FAST
from tests.support.facts import audit_rows
from tests.support.gunicorn import GunicornService, add_administrator
from tests.support.service_clients import PASSWORD, ask, log_in
from userapi.authentication.key_folder import KeyFolder, KeyState
from userapi.clock import ManualClock
from userapi.wiring.services import Services

pytestmark = pytest.mark.thorough

REVOKED_WITHIN_SECONDS = 2.0


@pytest.fixture
def signing(make_app: Callable[..., Flask], tmp_path: Path) -> Flask:
    """Return an application that signs with a key of a folder."""
    folder = {"JWT_ALGORITHM": "ES256", "JWT_KEYS_DIR": str(tmp_path / "keys")}
    app = make_app(**folder)
    assert flask(app, "keys", "generate").exit_code == 0
    return app


def flask(app: Flask, *arguments: str, stdin: str = "") -> Result:
    return app.test_cli_runner().invoke(args=list(arguments), input=stdin)


def folder_of(app: Flask) -> KeyFolder:
    services: Services = app.extensions["userapi"]
    return services.key_folder


def kid_of(app: Flask, state: KeyState) -> str:
    (kid,) = (record.kid for record in folder_of(app).records() if record.state is state)
    return kid


def test_the_next_key_signs_in_place_of_a_revoked_one(signing: Flask) -> None:
    stolen, upcoming = kid_of(signing, KeyState.ACTIVE), kid_of(signing, KeyState.NEXT)

    revoked = flask(signing, "keys", "revoke", stolen, "--yes")

    assert revoked.exit_code == 0, revoked.output
    assert f"{upcoming} signs now." in revoked.output
    assert kid_of(signing, KeyState.ACTIVE) == upcoming
    assert stolen not in {record.kid for record in folder_of(signing).records()}
    assert kid_of(signing, KeyState.NEXT) not in {stolen, upcoming}


def test_the_file_of_a_revoked_key_is_deleted(signing: Flask) -> None:
    stolen = kid_of(signing, KeyState.ACTIVE)
    folder = signing.extensions["userapi"].settings.keys_folder

    flask(signing, "keys", "revoke", stolen, "--yes")

    assert not (folder / f"{stolen}.pem").exists()


@pytest.mark.thorough
@pytest.mark.parametrize("state", [KeyState.NEXT, KeyState.RETIRED])
def test_a_key_that_does_not_sign_can_be_revoked_too(signing: Flask, state: KeyState) -> None:
    flask(signing, "keys", "rotate")
    active, stolen = kid_of(signing, KeyState.ACTIVE), kid_of(signing, state)

    revoked = flask(signing, "keys", "revoke", stolen, "--yes")

    assert revoked.exit_code == 0, revoked.output
    assert "signs now" not in revoked.output
    assert kid_of(signing, KeyState.ACTIVE) == active
    assert kid_of(signing, KeyState.NEXT) != stolen
    assert stolen not in {record.kid for record in folder_of(signing).records()}


def test_a_missing_next_key_is_generated(signing: Flask) -> None:
    path = signing.extensions["userapi"].settings.keys_folder / "keys.json"
    document = json.loads(path.read_text())
    document["keys"] = [key for key in document["keys"] if key["state"] == "active"]
    path.write_text(json.dumps(document))
    stolen = kid_of(signing, KeyState.ACTIVE)

    revoked = flask(signing, "keys", "revoke", stolen, "--yes")

    assert kid_of(signing, KeyState.ACTIVE) != stolen
    assert "may reject its tokens" in revoked.output


def test_the_revocation_is_audited(signing: Flask, app: Flask) -> None:
    stolen, upcoming = kid_of(signing, KeyState.ACTIVE), kid_of(signing, KeyState.NEXT)

    flask(signing, "keys", "revoke", stolen, "--yes")

    (row,) = audit_rows(app, action="key.revoked")
    assert (row.target_id, row.actor_type) == (stolen, "system")
    assert row.details == {"state": "active", "signs_now": upcoming}


def test_an_id_that_begins_with_a_hyphen_is_no_option(signing: Flask) -> None:
    answer = flask(signing, "keys", "revoke", "-Ab3_x", "--yes")

    assert answer.exit_code == 1
    assert "This key does not exist." in answer.output


def test_a_revocation_requires_a_confirmation(signing: Flask) -> None:
    stolen = kid_of(signing, KeyState.ACTIVE)

    declined = flask(signing, "keys", "revoke", stolen, stdin="n\n")
    unanswered = flask(signing, "keys", "revoke", stolen)

    assert (declined.exit_code, unanswered.exit_code) == (1, 1)
    assert kid_of(signing, KeyState.ACTIVE) == stolen
    assert flask(signing, "keys", "revoke", stolen, stdin="y\n").exit_code == 0


def test_an_unknown_key_is_rejected(signing: Flask) -> None:
    before = folder_of(signing).records()

    refused = [flask(signing, "keys", "revoke", kid, "--yes") for kid in ("A" * 43, "../keys", "")]

    assert [result.exit_code for result in refused] == [1, 1, 1]
    assert "This key does not exist" in refused[0].output
    assert folder_of(signing).records() == before


def test_a_revocation_that_was_interrupted_can_be_repeated(signing: Flask) -> None:
    """A crash between the two writes leaves a private key that no command lists."""
    stolen = kid_of(signing, KeyState.ACTIVE)
    path = signing.extensions["userapi"].settings.keys_folder / f"{stolen}.pem"
    content = path.read_bytes()
    flask(signing, "keys", "revoke", stolen, "--yes")
    path.write_bytes(content)

    flask(signing, "keys", "revoke", stolen, "--yes")

    assert not path.exists()


def test_a_key_of_the_key_file_is_explained(
    signing: Flask, make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    active = kid_of(signing, KeyState.ACTIVE)
    own = tmp_path / "own.pem"
    own.write_bytes((tmp_path / "keys" / f"{active}.pem").read_bytes())
    app = make_app(JWT_ALGORITHM="ES256", JWT_PRIVATE_KEY_FILE=str(own))

    refused = flask(app, "keys", "revoke", active, "--yes")

    assert refused.exit_code == 1
    assert "JWT_PRIVATE_KEY_FILE holds this key. Remove it from that file" in refused.output


@pytest.mark.thorough
def test_a_verify_only_key_of_the_folder_leaves_no_new_keys(
    signing: Flask, make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    with_other_key = make_app(JWT_ALGORITHM="ES256", JWT_KEYS_DIR=str(tmp_path / "other"))
    flask(with_other_key, "keys", "generate")
    own = next((tmp_path / "other").glob("*.pem"))
    app = make_app(
        JWT_ALGORITHM="ES256",
        JWT_KEYS_DIR=str(tmp_path / "keys"),
        JWT_PRIVATE_KEY_FILE=str(own),
    )
    stolen, upcoming = kid_of(signing, KeyState.ACTIVE), kid_of(signing, KeyState.NEXT)

    revoked = flask(app, "keys", "revoke", stolen, "--yes")

    assert revoked.exit_code == 0, revoked.output
    assert [record.kid for record in folder_of(app).records()] == [upcoming]


def test_there_is_no_key_to_revoke_under_hs256(app: Flask) -> None:
    refused = flask(app, "keys", "revoke", "A" * 43, "--yes")

    assert refused.exit_code == 1
    assert "JWT_ALGORITHM is HS256" in refused.output


def test_a_rotation_invalidates_no_token(signing: Flask, clock: ManualClock) -> None:
    """The guide recommended two rotations for a stolen key; only a revocation helps."""
    stolen = kid_of(signing, KeyState.ACTIVE)

    for _ in range(3):
        flask(signing, "keys", "rotate")

    assert stolen in {record.kid for record in folder_of(signing).usable()}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[GunicornService]:
    environment = {**FAST, "JWT_ALGORITHM": "ES256", "WEB_CONCURRENCY": "2"}
    service = GunicornService(environment)
    try:
        assert service.command("keys", "generate").exit_code == 0
        service.start()
        add_administrator(service, PASSWORD)
        yield service
    finally:
        service.__exit__()


def published(service: GunicornService) -> set[str]:
    with urllib.request.urlopen(service.base_url + "/.well-known/jwks.json", timeout=60) as answer:
        return {key["kid"] for key in json.load(answer)["keys"]}


@pytest.mark.thorough
def test_no_process_accepts_a_revoked_key_after_two_seconds(service: GunicornService) -> None:
    token = log_in(service.base_url, "admin").access_token
    stolen = jwt.get_unverified_header(token)["kid"]
    accepted = [ask(service.base_url, "GET", "/api/v1/auth/me", token=token)[0] for _ in range(10)]

    revoked = service.flask("keys", "revoke", stolen, "--yes")
    time.sleep(REVOKED_WITHIN_SECONDS)

    assert accepted == [200] * 10
    assert revoked.returncode == 0, revoked.stderr
    answers = [ask(service.base_url, "GET", "/api/v1/auth/me", token=token) for _ in range(20)]
    assert {(status, body["code"]) for status, body in answers} == {(401, "token_invalid")}
    assert not [kids for kids in (published(service) for _ in range(20)) if stolen in kids]
    fresh = log_in(service.base_url, "admin").access_token
    assert jwt.get_unverified_header(fresh)["kid"] in published(service)
    assert ask(service.base_url, "GET", "/api/v1/auth/me", token=fresh)[0] == 200
