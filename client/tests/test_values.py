"""Permissions, principals, keys and credentials: what needs no service."""

import copy
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from hostile import ISSUER

from userapi_client import (
    ApiKey,
    AsyncVerifier,
    Client,
    ClientCredentials,
    Events,
    FreshAuthenticationRequired,
    Login,
    PermissionDenied,
    Permissions,
    Principal,
    Problem,
    TokenRefused,
    Tokens,
    Unavailable,
    Verifier,
    parse_key,
)
from userapi_client.errors import ProblemUnavailable
from userapi_client.permissions import DeferredPermissions
from userapi_client.principal import require_authentication

KEY = "uaks_031SDlhm3cXd0fqoDweMV7003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf2ZGeM9"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def principal(**changes: Any) -> Principal:
    values: dict[str, Any] = {
        "id": "1",
        "type": "user",
        "username": None,
        "roles": ("user",),
        "permissions": Permissions(["media:read"]),
        "session_id": "2",
        "key_id": None,
        "authenticated_at": NOW,
        "acr": "aal1",
        "expires_at": None,
        "checked": "signature",
        "claims": {},
    }
    return Principal(**{**values, **changes})


@pytest.mark.parametrize(
    ("held", "wanted", "is_held"),
    [
        (["media:read"], "media:read", True),
        (["media:*"], "media:read", True),
        (["*"], "media:read", True),
        (["*"], "media:*", True),
        (["media:read"], "media:*", False),
        (["media:*"], "mediathek:read", False),
        (["media:*"], "media", False),
        ([], "media:read", False),
        (["media:read"], 5, False),
    ],
)
def test_a_wildcard_implies_permissions(held: list[str], wanted: object, is_held: bool) -> None:
    assert (wanted in Permissions(held)) is is_held


def test_an_intersection_keeps_the_names_that_the_other_side_covers() -> None:
    both = Permissions(["users:*"]) & Permissions(["users:read", "media:*"])

    assert both == Permissions(["users:read"])
    assert hash(both) == hash(Permissions(["users:read"]))
    assert list(both) == ["users:read"] and len(both) == 1
    assert Permissions(["*"]) & Permissions(["media:*"]) == Permissions(["media:*"])


def test_one_text_is_no_list_of_permissions() -> None:
    with pytest.raises(TypeError):
        Permissions("media:read")


def test_deferred_permissions_are_loaded_once_and_again_after_a_failure() -> None:
    outcomes: list[Any] = [Unavailable(), Permissions(["media:read"])]

    def load() -> Permissions:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Unavailable):
            raise outcome
        found: Permissions = outcome
        return found

    deferred = DeferredPermissions(load)

    assert repr(deferred) == "Permissions(not read yet)"
    with pytest.raises(Unavailable):
        deferred.covers(["media:read"])
    assert "media:read" in deferred and "media:write" not in deferred
    assert outcomes == []


def test_a_principal_names_the_first_missing_permission() -> None:
    who = principal()

    with pytest.raises(PermissionDenied) as denied:
        who.require("media:read", "media:delete", "media:write")

    assert denied.value.permission == "media:delete"
    assert who.can("media:read") and not who.can("media:read", "media:delete") and who.can()
    assert hash(who) == hash(principal())


def test_an_old_or_weak_authentication_is_refused() -> None:
    now = NOW.timestamp()
    require_authentication(principal(), max_age=60, acr="aal1", now=now + 60)
    require_authentication(principal(acr="aal2"), max_age=None, acr="aal1", now=now)

    with pytest.raises(FreshAuthenticationRequired) as old:
        require_authentication(principal(), max_age=60, acr=None, now=now + 61)
    with pytest.raises(FreshAuthenticationRequired) as weak:
        require_authentication(principal(acr=None), max_age=None, acr="aal2", now=now)
    with pytest.raises(FreshAuthenticationRequired):
        require_authentication(principal(authenticated_at=None), max_age=60, acr=None, now=now)

    assert (old.value.max_age, old.value.acr) == (60, None)
    assert (weak.value.max_age, weak.value.acr) == (None, "aal2")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"type": "service", "session_id": None, "key_id": "3"}, "user_required"),
        ({"session_id": None, "key_id": "3"}, "interactive_session_required"),
    ],
)
def test_keys_and_services_cannot_repeat_an_authentication(
    changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(TokenRefused) as refused:
        require_authentication(principal(**changes), max_age=60, acr=None, now=NOW.timestamp())

    assert (refused.value.code, refused.value.status) == (code, 403)


def test_a_key_contains_its_kind_and_id() -> None:
    found = parse_key(KEY)

    assert found is not None
    assert (found.kind, found.prefix) == ("service", "uak")
    assert found.key_id == "019a2f6e-3c1d-7b52-9d3e-5f0a4c7b8e21"


@pytest.mark.parametrize(
    "text",
    [
        KEY[:-1] + "8",  # checksum
        KEY.replace("uaks", "uakp"),  # the checksum covers the kind
        KEY + " ",
        KEY.upper(),
        "uaks_" + "z" * 71,
        "",
        "aaa.bbb.ccc",
    ],
)
def test_other_texts_are_no_keys(text: str) -> None:
    assert parse_key(text) is None


def test_no_text_of_a_credential_holds_its_secret() -> None:
    secret = "the-secret"
    texts = [
        repr(ApiKey(secret)),
        repr(ClientCredentials("account", secret, scope="users:read")),
        repr(Login("robin", secret)),
        repr(Tokens(secret, secret)),
        repr(Events(f"amqp://guest:{secret}@localhost//")),
    ]

    assert [text for text in texts if secret in text] == []
    with pytest.raises(ValueError) as refused:
        Client(f"https://user:{secret}@users.example.com")
    assert secret not in str(refused.value)


@pytest.mark.parametrize("url", ["", "users.example.com", "ftp://users", "http://", "http://u?x=1"])
def test_an_address_that_is_no_url_is_refused(url: str) -> None:
    for make in (Verifier, AsyncVerifier):
        with pytest.raises(ValueError):
            make(url, issuer=ISSUER, audience="aima")


def test_an_algorithm_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError):
        Verifier("http://users", issuer=ISSUER, audience="aima", algorithm="none")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error",
    [
        TokenRefused("token_expired"),
        FreshAuthenticationRequired(60, "aal2"),
        PermissionDenied("media:read"),
        Unavailable(3.0),
        Problem(409, "username_taken", "Taken", "Taken", [], "c0ffee", None, {"code": "x"}),
        ProblemUnavailable(503, "busy", retry_after=2),
    ],
)
def test_errors_survive_a_copy_and_another_process(error: Exception) -> None:
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)
