"""Passkeys on pages, as the forms of the script send them."""

import html
import json
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from tests.support.authenticator import NOTHING_WRONG, UV, Authenticator, Wrong, base64url
from tests.support.pages import PageReader, words
from tests.support.passkeys import add_passkey
from tests.support.users import LogIn, MadeUser, MakeUser
from userapi.actor import system_actor
from userapi.clock import ManualClock
from userapi.wiring.services import Services

pytestmark = pytest.mark.both_databases
MakeApp = Callable[..., Flask]
SIGN_IN = "/sign-in/passkey"
SECOND_STEP = "/sign-in/second-step"
ADD = "/security/passkeys"


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


@pytest.fixture
def laptop(robin: MadeUser, log_in: LogIn) -> Authenticator:
    """Return an authenticator with a passkey of Robin."""
    authenticator = Authenticator()
    add_passkey(log_in(robin), authenticator)
    return authenticator


def options(reader: PageReader, path: str) -> dict[str, Any]:
    answer = reader.post(f"{path}/options")
    assert answer.status_code == 200, answer.text
    public_key: dict[str, Any] = answer.get_json()["public_key"]
    return public_key


def use(
    reader: PageReader,
    path: str,
    authenticator: Authenticator,
    *,
    query: str = "",
    wrong: Wrong = NOTHING_WRONG,
    **fields: str,
) -> Any:
    credential = authenticator.get(options(reader, path), wrong)
    return reader.post(path + query, credential=json.dumps(credential), **fields)


def first_step(reader: PageReader, user: MadeUser) -> None:
    reader.get("/sign-in")
    reader.follow(reader.post("/sign-in", username=user.username, password=user.password))


def signal_of(answer: Any) -> Any:
    found = re.search(r'data-signal="([^"]*)"', answer.text)
    return json.loads(html.unescape(found[1])) if found else None


def test_a_passkey_signs_in_and_leads_on(
    reader: PageReader, robin: MadeUser, laptop: Authenticator
) -> None:
    shown = reader.get("/sign-in?onward=/console/sessions")

    answer = use(reader, SIGN_IN, laptop, query="?onward=/console/sessions")

    assert "Sign in with a passkey" in words(shown)
    assert 'autocomplete="username webauthn"' in shown.text
    assert answer.location == "/console/sessions"
    assert "this one" in words(reader.follow(answer))


def test_an_unknown_passkey_is_signalled_to_the_browser_and_a_faulty_one_is_not(
    app: Flask, reader: PageReader, robin: MadeUser, laptop: Authenticator
) -> None:
    """The signal deletes the passkey in the browser."""
    reader.get("/sign-in")
    faulty = use(reader, SIGN_IN, laptop, wrong=Wrong(signature=b"wrong"))
    with app.app_context():
        services: Services = app.extensions["userapi"]
        services.mfa_reset.reset(UUID(robin.id), actor=system_actor("tests"))

    unknown = use(reader, SIGN_IN, laptop)

    assert faulty.status_code == unknown.status_code == 401
    assert signal_of(faulty) is None
    assert signal_of(unknown) == {
        "method": "signalUnknownCredential",
        "details": {"rpId": "localhost", "credentialId": base64url(laptop.passkeys[0].id)},
    }


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", "[" * 10_000])
def test_rubbish_in_place_of_a_passkey_is_refused(reader: PageReader, text: str) -> None:
    reader.get("/sign-in")

    answer = reader.post(SIGN_IN, credential=text)

    assert answer.status_code == 422
    assert "Sign in" in words(answer)


def test_a_passkey_completes_the_sign_in_with_a_password(
    reader: PageReader, robin: MadeUser, laptop: Authenticator
) -> None:
    first_step(reader, robin)
    shown = reader.get(SECOND_STEP)
    pending = reader.cookie

    refused = use(reader, f"{SECOND_STEP}/passkey", laptop, wrong=Wrong(flags=UV))
    answer = use(reader, f"{SECOND_STEP}/passkey", laptop)

    assert "Use a passkey" in words(shown)
    assert refused.status_code == 401
    assert "4 tries are left" in words(refused)
    assert answer.location == "/console/"
    assert reader.cookie != pending
    assert "Profile" in words(reader.follow(answer))


def test_the_second_step_accepts_passkeys_of_its_user_only(
    reader: PageReader, robin: MadeUser, laptop: Authenticator, make_user: MakeUser, log_in: LogIn
) -> None:
    other = Authenticator()
    add_passkey(log_in(make_user("other")), other)
    first_step(reader, robin)
    own = options(reader, f"{SECOND_STEP}/passkey")

    credential = other.get(own, passkey=other.passkeys[0])
    answer = reader.post(f"{SECOND_STEP}/passkey", credential=json.dumps(credential))

    assert answer.status_code == 401
    assert reader.get("/profile").status_code == 303


def test_nobody_gets_options_without_the_first_step(reader: PageReader) -> None:
    reader.get("/sign-in")

    answer = reader.post(f"{SECOND_STEP}/passkey/options")
    sent = reader.post(f"{SECOND_STEP}/passkey", credential="{}")

    assert answer.status_code == 401
    assert sent.location == "/console/sign-in"


def test_the_first_passkey_brings_recovery_codes_and_the_session_continues(
    reader: PageReader, robin: MadeUser, log_in: LogIn
) -> None:
    elsewhere = log_in(robin)
    reader.sign_in(robin)
    reader.get("/security")
    before = reader.cookie

    credential = Authenticator().create(options(reader, ADD))
    answer = reader.post(ADD, credential=json.dumps(credential), name="Laptop")

    assert answer.status_code == 200
    assert len(re.findall(r"<code>[0-9a-z]{4}(?:-[0-9a-z]{4}){3}</code>", answer.text)) == 10
    assert reader.cookie != before
    shown = words(reader.get("/security"))
    assert "Laptop" in shown
    assert "10 recovery codes are left" in shown
    assert elsewhere.get("/api/v1/auth/me").status_code == 401


def test_a_further_passkey_is_added_and_the_same_one_is_refused(
    reader: PageReader, robin: MadeUser, laptop: Authenticator
) -> None:
    reader.get("/sign-in")
    use(reader, SIGN_IN, laptop)
    reader.get("/security")

    credential = json.dumps(Authenticator().create(options(reader, ADD)))
    added = reader.follow(reader.post(ADD, credential=credential))
    again = reader.follow(reader.post(ADD, credential=credential))

    assert "The passkey was added." in words(added)
    assert "The passkey was added." not in words(again)


def test_adding_a_passkey_needs_a_fresh_session(
    reader: PageReader, robin: MadeUser, laptop: Authenticator, clock: ManualClock
) -> None:
    reader.get("/sign-in")
    use(reader, SIGN_IN, laptop)
    clock.advance(seconds=901)
    reader.get("/security")

    refused = reader.post(f"{ADD}/options")
    shown = reader.follow(refused)
    confirmed = use(reader, "/confirm/passkey", laptop, query="?onward=/console/security")
    reader.get("/security")

    assert refused.location == "/console/confirm?onward=/console/security"
    assert "Use a passkey" in words(shown)
    assert confirmed.location == "/console/security"
    assert options(reader, ADD)["rp"]["id"] == "localhost"


def test_a_wrong_passkey_confirms_nothing(
    reader: PageReader, robin: MadeUser, laptop: Authenticator, clock: ManualClock
) -> None:
    reader.get("/sign-in")
    use(reader, SIGN_IN, laptop)
    clock.advance(seconds=901)
    reader.get("/confirm")

    answer = use(reader, "/confirm/passkey", laptop, wrong=Wrong(flags=UV))

    assert answer.status_code == 401
    assert reader.post(f"{ADD}/options").status_code == 303


def test_a_removal_signals_the_passkeys_that_are_left(
    reader: PageReader, robin: MadeUser, laptop: Authenticator
) -> None:
    reader.get("/sign-in")
    use(reader, SIGN_IN, laptop)
    page = reader.get("/security")
    [factor] = re.findall(r"/security/factors/([0-9a-f-]+)/remove", page.text)

    removed = reader.follow(reader.post(f"/security/factors/{factor}/remove"))

    assert signal_of(page) is None
    signal = signal_of(removed)
    assert signal["method"] == "signalAllAcceptedCredentials"
    assert signal["details"]["allAcceptedCredentialIds"] == []
    assert signal["details"]["userId"] == base64url(laptop.passkeys[0].user_handle)
    assert signal_of(reader.get("/security")) is None


def test_no_page_offers_passkeys_while_they_are_off(make_app: MakeApp, make_user: MakeUser) -> None:
    app = make_app(FEATURE_PASSKEYS="false")
    robin = make_user("robin")
    reader = PageReader(app)
    shown = [words(reader.get("/sign-in"))]
    refused = reader.post(SIGN_IN, credential="{}")
    reader.sign_in(robin)
    shown.append(words(reader.get("/security")))

    assert not [text for text in shown if "passkey" in text.lower()]
    assert refused.status_code in (403, 422)
    assert reader.post(f"{ADD}/options").status_code == 403
