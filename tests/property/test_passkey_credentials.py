"""Mutated credentials, as a password manager with a bug or an attacker sends them: never a 500."""

import base64
import copy
from typing import Any
from uuid import UUID

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from tests.support.authenticator import Authenticator, Json, base64url, from_base64url
from tests.support.client import JsonClient
from tests.support.passkeys import ADD, SIGN_IN, add_passkey, options
from tests.support.users import LogIn, MakeUser, SignedInClient
from userapi.factors.models import Passkey
from userapi.infrastructure.database import transaction

EXAMPLES = 150
SETTINGS = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20)
)
documents = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
raw_bytes = st.binary(max_size=200)
cbor = st.recursive(
    st.one_of(scalars, raw_bytes),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.integers(-9, 9), st.text(max_size=8)), inner, max_size=5),
    ),
    max_leaves=8,
)


# Each example has another credential. What is drawn must not depend on its bytes.
positions = st.integers(0, 2**16)


@st.composite
def damaged_text(draw: st.DrawFn, text: str) -> Any:
    """Return a member with another value, or with other bytes in it."""
    kind = draw(st.sampled_from(["document", "text", "bytes", "flip", "cut", "padded", "plain"]))
    if kind == "document":
        return draw(documents)
    if kind == "text":
        return draw(st.text(max_size=60))
    if kind == "bytes":
        return base64url(draw(raw_bytes))
    value = _bytes_of(text)
    position, mask = draw(positions), draw(st.integers(1, 255))
    if kind == "flip":
        changed = bytearray(value or b"\0")
        changed[position % len(changed)] ^= mask
        return base64url(bytes(changed))
    if kind == "cut":
        return base64url(value[: position % (len(value) + 1)])
    if kind == "padded":
        return text + "=" * draw(st.integers(0, 5))
    return base64.b64encode(value).decode()


@st.composite
def mutated(draw: st.DrawFn, credential: Json) -> Json:
    """Return a credential with one to three mutations, in it or in its response."""
    changed = copy.deepcopy(credential)
    for _ in range(draw(st.integers(1, 3))):
        holder = changed
        if draw(st.booleans()) and isinstance(changed.get("response"), dict):
            holder = changed["response"]
        name = draw(st.one_of(st.sampled_from(sorted(holder) or ["id"]), st.text(max_size=8)))
        if draw(st.integers(0, 5)) == 0:
            holder.pop(name, None)
        elif isinstance(holder.get(name), str):
            holder[name] = draw(damaged_text(holder[name]))
        else:
            holder[name] = draw(documents)
    return changed


def _bytes_of(text: str) -> bytes:
    """Return the bytes of a text, whether or not it is base64url."""
    try:
        return from_base64url(text)
    except ValueError:
        return text.encode()


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator()


@pytest.fixture
def own(make_user: MakeUser, log_in: LogIn, authenticator: Authenticator) -> SignedInClient:
    """Return the client of a user who has a passkey."""
    return add_passkey(log_in(make_user("robin")), authenticator)[0]


def continue_after(own: SignedInClient, answer: Any) -> None:
    """Use the new tokens if a passkey was added, and remove it: an account has 20 at most."""
    if answer.status_code == 201:
        own.token = answer.get_json()["access_token"]
        with own.app.app_context(), transaction() as session:
            session.execute(
                delete(Passkey).where(Passkey.id == UUID(answer.get_json()["factor"]["id"]))
            )


@pytest.mark.thorough
@pytest.mark.usefixtures("own")
def test_mutated_assertions_are_answered(client: JsonClient, authenticator: Authenticator) -> None:
    @SETTINGS
    @given(st.data())
    def try_one(data: st.DataObject) -> None:
        credential = authenticator.get(options(client, SIGN_IN))

        answer = client.post(SIGN_IN, json={"credential": data.draw(mutated(credential))})

        assert answer.status_code in {200, 400, 401, 422}, answer.text
        if answer.status_code == 400:
            # The JSON itself: lone surrogates and numbers beyond those of JSON.
            assert answer.get_json()["code"] == "malformed_json", answer.text

    try_one()


@pytest.mark.thorough
def test_mutated_registrations_are_answered(
    own: SignedInClient, authenticator: Authenticator
) -> None:
    @SETTINGS
    @given(st.data())
    def try_one(data: st.DataObject) -> None:
        credential = authenticator.create(options(own, ADD))

        answer = own.post(ADD, json={"credential": data.draw(mutated(credential))})

        continue_after(own, answer)
        assert answer.status_code in {201, 400, 409, 422}, answer.text

    try_one()


@pytest.mark.thorough
def test_mutated_attestation_objects_are_answered(
    own: SignedInClient, authenticator: Authenticator
) -> None:
    @SETTINGS
    @given(st.data())
    def try_one(data: st.DataObject) -> None:
        credential = authenticator.create(options(own, ADD))
        response = credential["response"]
        attestation = cbor2.loads(from_base64url(response["attestationObject"]))
        auth_data = attestation["authData"]
        if data.draw(st.booleans()):
            # Another public key, after RP ID hash, flags, counter, AAGUID and the id.
            attestation["authData"] = auth_data[: 55 + 32] + cbor2.dumps(data.draw(cbor))
        else:
            attestation[data.draw(st.sampled_from(sorted(attestation)))] = data.draw(cbor)
        response["attestationObject"] = base64url(cbor2.dumps(attestation))

        answer = own.post(ADD, json={"credential": credential})

        continue_after(own, answer)
        assert answer.status_code in {201, 400, 409}, answer.text

    try_one()
