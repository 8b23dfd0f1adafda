"""The ceremonies of WebAuthn: what is accepted, and the reason of each rejection."""

import json
from typing import Any

import cbor2
import pytest

from tests.support.authenticator import (
    BE,
    BS,
    EDDSA,
    ES256,
    NOTHING_WRONG,
    RS256,
    UP,
    UV,
    Authenticator,
    Wrong,
    cose_key,
)
from userapi.factors.credentials import (
    KnownCredential,
    NewPasskey,
    read_assertion,
    read_registration,
)
from userapi.factors.passkey_errors import PasskeyFault, ResponseRejected
from userapi.factors.relying_party import RelyingParty
from userapi.factors.webauthn_options import creation_options, request_options
from userapi.factors.webauthn_verification import verify_assertion, verify_registration

ORIGINS = ("http://localhost:8000", "https://id.example.com")
PARTY = RelyingParty(id="localhost", name="User Service", origins=ORIGINS)
HANDLE = bytes(range(32))
CHALLENGE = bytes(range(78))


def creation(excluded: list[KnownCredential] | None = None) -> dict[str, Any]:
    return creation_options(
        PARTY,
        challenge=CHALLENGE,
        user_handle=HANDLE,
        username="robin",
        display_name="Robin Hood",
        excluded=excluded or [],
    )


def request() -> dict[str, Any]:
    return request_options(PARTY, challenge=CHALLENGE, allowed=[])


def registered(authenticator: Authenticator, wrong: Wrong = NOTHING_WRONG) -> NewPasskey:
    return verify_registration(
        read_registration(authenticator.create(creation(), wrong)), party=PARTY
    )


def test_creation_options_are_those_of_discoverable_verified_passkeys() -> None:
    known = KnownCredential(credential_id=b"known", transports=["internal", "of the future"])

    options = creation([known])

    assert options == {
        "rp": {"id": "localhost", "name": "User Service"},
        "user": {
            "id": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
            "name": "robin",
            "displayName": "Robin Hood",
        },
        "challenge": options["challenge"],
        "pubKeyCredParams": [
            {"type": "public-key", "alg": -8},
            {"type": "public-key", "alg": -7},
            {"type": "public-key", "alg": -257},
        ],
        "timeout": 300000,
        "excludeCredentials": [{"id": "a25vd24", "type": "public-key", "transports": ["internal"]}],
        "authenticatorSelection": {
            "residentKey": "required",
            "requireResidentKey": True,
            "userVerification": "required",
        },
        "attestation": "none",
    }
    assert json.loads(json.dumps(options)) == options


def test_request_options_require_user_verification() -> None:
    options = request()

    assert options == {
        "challenge": options["challenge"],
        "timeout": 300000,
        "rpId": "localhost",
        "allowCredentials": [],
        "userVerification": "required",
    }


@pytest.mark.parametrize("algorithm", [ES256, EDDSA, RS256])
@pytest.mark.parametrize("synced", [True, False])
def test_a_passkey_of_each_algorithm_is_added_and_used(algorithm: int, synced: bool) -> None:
    authenticator = Authenticator(algorithm=algorithm, synced=synced)
    new = registered(authenticator)

    state = verify_assertion(
        read_assertion(authenticator.get(request())),
        party=PARTY,
        public_key=new.public_key,
        sign_count=new.state.sign_count,
    )

    assert new.transports == ["hybrid", "internal"]
    assert (new.state.backup_eligible, new.state.backed_up) == (synced, synced)
    assert (state.backup_eligible, state.backed_up) == (synced, synced)
    assert state.sign_count == (0 if synced else 2)


def test_every_origin_of_the_settings_is_accepted() -> None:
    for origin in ORIGINS:
        assert registered(Authenticator(origin=origin)).public_key


@pytest.mark.parametrize(
    ("format_", "statement"),
    [
        ("packed", {"alg": -7, "sig": b"not a signature"}),
        ("fido-u2f", {}),
        ("apple", {"x5c": [b"no certificate"]}),
        ("of-the-future", {"anything": 1}),
        ("none", {"sig": b""}),
    ],
)
def test_attestation_statements_are_not_judged(format_: str, statement: dict[str, Any]) -> None:
    wrong = Wrong(format=format_, statement=statement)

    assert registered(Authenticator(), wrong).public_key


RSA_1024 = {1: 3, 3: RS256, -1: b"\xc0" + bytes(126) + b"\x01", -2: b"\x01\x00\x01"}
POINT = {1: 2, 3: ES256, -1: 1, -2: bytes(31) + b"\x01", -3: bytes(31) + b"\x01"}

WRONG_ANYWHERE = [
    (Wrong(client_data={"type": "webauthn.other"}), PasskeyFault.TYPE),
    (Wrong(client_data={"origin": "https://evil.example"}), PasskeyFault.ORIGIN),
    (Wrong(client_data={"origin": "http://localhost:8000/"}), PasskeyFault.ORIGIN),
    (Wrong(client_data={"origin": "HTTP://localhost:8000"}), PasskeyFault.ORIGIN),
    (Wrong(rp_id="example.com"), PasskeyFault.RP_ID),
    (Wrong(flags=UP), PasskeyFault.USER_PRESENCE),
    (Wrong(flags=UV), PasskeyFault.USER_VERIFICATION),
    (Wrong(flags=BE, extra_flags=BS), PasskeyFault.BACKUP_FLAGS),
]


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        *WRONG_ANYWHERE,
        (Wrong(attested_id=b"another"), PasskeyFault.MALFORMED),
        (Wrong(attested_id=b""), PasskeyFault.PUBLIC_KEY),
        (Wrong(public_key=POINT), PasskeyFault.PUBLIC_KEY),
        (Wrong(public_key=RSA_1024), PasskeyFault.PUBLIC_KEY),
        (Wrong(public_key={**POINT, 3: -257}), PasskeyFault.PUBLIC_KEY),
        (Wrong(public_key={**POINT, 3: -36}), PasskeyFault.PUBLIC_KEY),
        (Wrong(public_key={**POINT, -1: 2}), PasskeyFault.PUBLIC_KEY),
        (Wrong(public_key={**POINT, -2: "text"}), PasskeyFault.PUBLIC_KEY),
        (Wrong(public_key={1: 1, 3: EDDSA, -1: 6, -2: b"short"}), PasskeyFault.PUBLIC_KEY),
        (Wrong(public_key={1: 2}), PasskeyFault.PUBLIC_KEY),
        (Wrong(public_key=[1, 2]), PasskeyFault.PUBLIC_KEY),
        (Wrong(public_key=4), PasskeyFault.PUBLIC_KEY),
        (Wrong(public_key=b"\x04"), PasskeyFault.PUBLIC_KEY),
    ],
)
def test_a_wrong_registration_is_rejected_for_its_reason(wrong: Wrong, fault: PasskeyFault) -> None:
    with pytest.raises(ResponseRejected) as rejected:
        registered(Authenticator(), wrong)

    assert rejected.value.fault is fault


@pytest.mark.parametrize(
    "attestation_object",
    [b"", b"\xff", cbor2.dumps([]), cbor2.dumps({}), cbor2.dumps({"authData": 1}), b"\x81" * 5000],
)
def test_a_malformed_attestation_object_is_rejected(attestation_object: bytes) -> None:
    answer = read_registration(Authenticator().create(creation()))
    damaged = type(answer)(
        credential_id=answer.credential_id,
        client_data=answer.client_data,
        attestation_object=attestation_object,
        transports=(),
    )

    with pytest.raises(ResponseRejected) as rejected:
        verify_registration(damaged, party=PARTY)

    assert rejected.value.fault is PasskeyFault.MALFORMED


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        *WRONG_ANYWHERE,
        (Wrong(signature=b"not a signature"), PasskeyFault.SIGNATURE),
        # The signature is checked first: nothing else in an unsigned response is known.
        (Wrong(signature=b"no", client_data={"origin": "https://evil.example"}), "signature"),
        (Wrong(counter=1), PasskeyFault.COUNTER),
        (Wrong(counter=0), PasskeyFault.COUNTER),
    ],
)
def test_a_wrong_assertion_is_rejected_for_its_reason(wrong: Wrong, fault: PasskeyFault) -> None:
    authenticator = Authenticator(synced=False)
    new = registered(authenticator)
    assert new.state.sign_count == 1

    with pytest.raises(ResponseRejected) as rejected:
        verify_assertion(
            read_assertion(authenticator.get(request(), wrong)),
            party=PARTY,
            public_key=new.public_key,
            sign_count=new.state.sign_count,
        )

    assert rejected.value.fault == fault


def test_the_signature_of_another_passkey_is_rejected() -> None:
    first, second = Authenticator(), Authenticator()
    new = registered(first)
    registered(second)
    answer = second.get(request())
    answer["id"] = answer["rawId"] = first.get(request())["id"]

    with pytest.raises(ResponseRejected) as rejected:
        verify_assertion(
            read_assertion(answer), party=PARTY, public_key=new.public_key, sign_count=0
        )

    assert rejected.value.fault is PasskeyFault.SIGNATURE


def test_stored_keys_are_cose() -> None:
    authenticator = Authenticator()

    new = registered(authenticator)

    assert cbor2.loads(new.public_key) == cose_key(authenticator.passkeys[0].key)


@pytest.mark.parametrize(
    ("rp_id", "origins", "related"),
    [
        ("example.com", ("https://example.com", "https://id.example.com"), []),
        ("example.com", ("https://id.example.com:8443",), []),
        ("id.example.com", ("https://id.example.com", "https://example.com"), [1]),
        ("example.com", ("https://notexample.com", "https://example.org"), [0, 1]),
        ("example.com", ("android:apk-key-hash:abc", "https://example.com"), []),
        ("localhost", ("http://localhost:8000",), []),
        ("", ("https://example.com",), []),
    ],
)
def test_origins_outside_the_domain_of_the_rp_id_are_related(
    rp_id: str, origins: tuple[str, ...], related: list[int]
) -> None:
    party = RelyingParty(id=rp_id, name="S", origins=origins)

    assert party.related_origins == [origins[index] for index in related]
