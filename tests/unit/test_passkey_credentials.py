"""The JSON of credentials: what is tolerated, and what is malformed."""

import base64
import json
from typing import Any

import pytest

from userapi.factors.credentials import (
    MalformedCredential,
    read_assertion,
    read_registration,
)
from userapi.factors.encoding import base64url

ID = bytes(range(240, 256)) + b"\xfb\xef\xff"
CLIENT_DATA = {
    "type": "webauthn.get",
    "challenge": base64url(b"challenge"),
    "origin": "https://id.example.com",
}


def assertion(**response: Any) -> dict[str, Any]:
    return {
        "id": base64url(ID),
        "rawId": base64url(ID),
        "type": "public-key",
        "response": {
            "clientDataJSON": base64url(json.dumps(CLIENT_DATA).encode()),
            "authenticatorData": base64url(b"data"),
            "signature": base64url(b"signature"),
            **response,
        },
    }


def client_data(**members: Any) -> str:
    return base64url(json.dumps({**CLIENT_DATA, **members}).encode())


def test_an_assertion_is_decoded() -> None:
    read = read_assertion(assertion(userHandle=base64url(b"handle")))

    assert (read.credential_id, read.authenticator_data) == (ID, b"data")
    assert (read.signature, read.user_handle) == (b"signature", b"handle")
    assert (read.client_data.type, read.client_data.challenge) == ("webauthn.get", b"challenge")
    assert read.client_data.origin == "https://id.example.com"
    assert read.client_data.is_embedded is False


@pytest.mark.parametrize("encoded", [base64.urlsafe_b64encode, base64.b64encode])
def test_padding_and_plain_base64_are_tolerated(encoded: Any) -> None:
    credential = assertion(userHandle=encoded(ID).decode(), signature=encoded(ID).decode())
    credential["id"] = encoded(ID).decode()
    assert encoded(ID).decode() != base64url(ID)

    read = read_assertion(credential)

    assert read.credential_id == read.signature == read.user_handle == ID


@pytest.mark.parametrize("handle", [None, ""])
def test_a_user_handle_may_be_absent(handle: str | None) -> None:
    assert read_assertion(assertion(userHandle=handle)).user_handle is None
    assert read_assertion(assertion()).user_handle is None


@pytest.mark.parametrize(
    ("members", "is_embedded"),
    [
        ({"crossOrigin": False}, False),
        ({"crossOrigin": None}, False),
        ({"crossOrigin": True}, True),
        ({"crossOrigin": "false"}, True),
        ({"crossOrigin": False, "topOrigin": "https://evil.example"}, True),
        ({"topOrigin": None}, True),
    ],
)
def test_frames_of_other_origins_are_recognized(members: dict[str, Any], is_embedded: bool) -> None:
    read = read_assertion(assertion(clientDataJSON=client_data(**members)))

    assert read.client_data.is_embedded is is_embedded


@pytest.mark.parametrize(
    "member",
    [
        {"id": base64url(b"another")},
        {"rawId": base64url(b"another")},
        {"id": "", "rawId": ""},
        {"id": base64url(bytes(1024)), "rawId": base64url(bytes(1024))},
        {"id": "*", "rawId": "*"},
        {"id": "é", "rawId": "é"},
        {"id": "AAAAA", "rawId": "AAAAA"},
        {"type": "password"},
        {"type": ""},
    ],
)
def test_a_malformed_id_or_type_is_rejected(member: dict[str, Any]) -> None:
    with pytest.raises(MalformedCredential):
        read_assertion({**assertion(), **member})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 5000,
        '{"type": NaN}',
        json.dumps({**CLIENT_DATA, "type": 1}),
        json.dumps({**CLIENT_DATA, "challenge": None}),
        json.dumps({**CLIENT_DATA, "challenge": "*"}),
        json.dumps({**CLIENT_DATA, "origin": ["https://id.example.com"]}),
        '{"type": "a", "type": "webauthn.get", "challenge": "", "origin": ""}',
    ],
)
def test_malformed_client_data_is_rejected(text: str) -> None:
    with pytest.raises(MalformedCredential):
        read_assertion(assertion(clientDataJSON=base64url(text.encode())))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_client_data_is_plain_utf_8(encoding: str) -> None:
    raw = json.dumps(CLIENT_DATA).encode(encoding)

    with pytest.raises(MalformedCredential):
        read_assertion(assertion(clientDataJSON=base64url(raw)))


@pytest.mark.parametrize("transports", [{}, {"transports": None}, {"transports": []}])
def test_transports_of_a_new_credential_may_be_absent(transports: dict[str, Any]) -> None:
    credential = assertion(attestationObject=base64url(b"object"), **transports)

    read = read_registration(credential)

    assert (read.attestation_object, read.transports) == (b"object", ())
