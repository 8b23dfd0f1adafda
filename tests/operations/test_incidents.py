"""Incidents: what the guide tells to do at three in the morning ends what it says it ends."""

import time

import jwt

from tests.blackbox.test_as_shipped import add_administrator, call, log_in
from tests.operations.stage import Stage

NEW_ENCRYPTION_KEY = "another-encryption-key-8Kd02mNq5vXz7Tb1"


def test_a_stolen_signing_key_is_worth_nothing_two_seconds_later(stage: Stage) -> None:
    stage.environment["JWT_ALGORITHM"] = "ES256"
    assert stage.service.flask("keys", "generate").returncode == 0
    stage.service.start()
    add_administrator(stage.service)
    token = log_in(stage.service)
    stolen = jwt.get_unverified_header(token)["kid"]
    accepted = [call(stage.service, "GET", "/api/v1/auth/me", token=token)[0] for _ in range(10)]

    stage.run("A stolen signing key", KID=stolen)
    time.sleep(2)

    answers = [call(stage.service, "GET", "/api/v1/auth/me", token=token) for _ in range(10)]
    assert accepted == [200] * 10
    assert {(status, body["code"]) for status, body in answers} == {(401, "token_invalid")}
    assert call(stage.service, "GET", "/api/v1/auth/me", token=log_in(stage.service))[0] == 200


def test_a_seal_key_that_is_found_again_verifies(stage: Stage) -> None:
    former = _sealed_and_then_changed(stage)
    stage.restart(ENCRYPTION_KEY_PREVIOUS=former)

    output = stage.run("A lost seal key")

    assert "The audit log verifies." in output


def test_a_lost_seal_key_is_given_up_on_the_record(stage: Stage) -> None:
    _sealed_and_then_changed(stage)

    output = stage.run("A lost seal key", 2, REASON="The machine with the key burnt down")

    assert "UTC: The machine with the key burnt down" in output
    assert "The audit log verifies." in output


def _sealed_and_then_changed(stage: Stage) -> str:
    """Seal some rows, change the key they were sealed with and return the former one."""
    former = stage.environment["ENCRYPTION_KEY"]
    stage.service.start()
    add_administrator(stage.service)
    assert stage.service.flask("audit", "seal").returncode == 0
    stage.restart(ENCRYPTION_KEY=NEW_ENCRYPTION_KEY)
    refused = stage.service.flask("audit", "verify")
    assert refused.returncode == 1
    assert "sealed with a key that is not here" in refused.stdout
    assert stage.service.flask("doctor").returncode != 0
    return former
