"""Which tokens are accepted by their signature, and which are not."""

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from either import AnyVerifier
from hostile import INTROSPECT, SESSION, USER, VERIFY, HostileService, Reply, SigningKey, problem

from userapi_client import ApiKey, Permissions, TokenRefused, Unavailable

Make = Callable[..., AnyVerifier]
KEY = "uaks_031SDlhm3cXd0fqoDweMV7003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf2ZGeM9"


def refusal(verifier: AnyVerifier, token: Any, **options: Any) -> tuple[str, int]:
    with pytest.raises(TokenRefused) as refused:
        verifier.verify(token, **options)
    assert str(token) not in str(refused.value) + repr(refused.value) or not token
    return refused.value.code, refused.value.status


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_a_token_contains_the_caller(make_verifier: Make, service: HostileService) -> None:
    token = service.token(auth_time=1_790_000_000, acr="aal2", roles=["user", "editor"])

    found = make_verifier().verify(token)

    assert (found.id, found.type, found.session_id, found.key_id) == (USER, "user", SESSION, None)
    assert found.roles == ("user", "editor")
    assert found.permissions == Permissions(["media:read"])
    assert (found.username, found.acr, found.checked) == (None, "aal2", "signature")
    assert found.authenticated_at is not None
    assert found.authenticated_at.timestamp() == 1_790_000_000
    assert found.claims["iss"] == "aima-user-service"
    with pytest.raises(TypeError):
        found.claims["sub"] = "other"  # type: ignore[index]


def test_a_client_token_is_a_service(make_verifier: Make, service: HostileService) -> None:
    token = service.token(client_id=USER, key_id=SESSION, scope="media:read")

    found = make_verifier().verify(token)

    assert (found.type, found.session_id, found.key_id) == ("service", None, SESSION)


def bad_tokens(service: HostileService) -> dict[str, Any]:
    now = int(time.time())
    good = service.token()
    head, body, signature = good.split(".")
    claims = jwt.decode(good, options={"verify_signature": False})
    confused = jwt.encode(
        claims, "secret " * 10, algorithm="HS256", headers={"typ": "at+jwt", "kid": "first"}
    )
    return {
        "other signature": f"{head}.{body}.{signature[:-8]}AAAAAAAA",
        "no signature": f"{head}.{body}.",
        "alg none": f"{encoded({'alg': 'none', 'typ': 'at+jwt', 'kid': 'first'})}.{body}.",
        "alg confusion": confused,
        "other key with the same id": service.token(key=SigningKey("first")),
        "refresh token": service.token(header={"typ": "rt+jwt"}),
        "plain JWT": service.token(header={"typ": "JWT"}),
        "typ is no text": f"{encoded({'alg': 'ES256', 'typ': 5, 'kid': 'first'})}.{body}.AAAA",
        "no kid": service.token(header={"kid": ""}),
        "kid is a list": f"{encoded({'alg': 'ES256', 'typ': 'at+jwt', 'kid': []})}.{body}.AAAA",
        "header is a list": f"{encoded([])}.{body}.{signature}",
        "critical extension": service.token(header={"crit": ["exp"]}),
        "other issuer": service.token(iss="elsewhere"),
        "other audience": service.token(aud="other"),
        "no audience": service.token(without=("aud",)),
        "subject is empty": service.token(sub=""),
        "exp is a text": service.token(exp=str(now + 60)),
        "exp is huge": service.token(exp=10**18),
        "exp is true": service.token(exp=True),
        "iat in the future": service.token(iat=now + 100),
        "nbf in the future": service.token(nbf=now + 100),
        "roles are a text": service.token(roles="admin"),
        "permissions are a text": service.token(permissions="media:read"),
        "no permissions": service.token(without=("permissions",)),
        "omitted and there": service.token(permissions_omitted=True),
        "omitted is 1": service.token(without=("permissions",), permissions_omitted=1),
        **{f"no {name}": service.token(without=(name,)) for name in ("sub", "sid", "jti", "exp")},
        **{f"no {name}": service.token(without=(name,)) for name in ("iat", "nbf", "roles")},
        "padding": f"{head}=.{body}.{signature}",
        "blanks": f" {good}",
        "two segments": f"{head}.{body}",
        "five segments": "a.b.c.d.e",
        "empty": "",
        "not ASCII": good + "ä",
        "lone surrogate": "\ud800",
        "NUL": "\0.\0.\0",
        "very long": "a" * 20_000,
        "deep": f"{base64.urlsafe_b64encode(b'[' * 5000).decode().rstrip('=')}.{body}.AAAA",
        "claim twice": jwt.PyJWS().encode(
            b'{"sub":"somebody",' + json.dumps(claims).encode()[1:],
            service.key.private,
            algorithm="ES256",
            headers={"typ": "at+jwt", "kid": "first"},
        ),
        "duplicate member": f"{base64.urlsafe_b64encode(DOUBLE).decode().rstrip('=')}.{body}.AAAA",
    }


DOUBLE = b'{"alg":"ES256","typ":"at+jwt","kid":"first","kid":"first"}'


def test_a_bad_token_is_invalid_whatever_its_text(
    make_verifier: Make, service: HostileService
) -> None:
    verifier = make_verifier()
    verifier.warm()

    codes = {name: refusal(verifier, token) for name, token in bad_tokens(service).items()}

    assert {name for name, code in codes.items() if code != ("token_invalid", 401)} == set()


def test_tokens_end_when_they_say_with_some_leeway(
    make_verifier: Make, service: HostileService, clock: Any
) -> None:
    verifier = make_verifier(clock=clock)
    token = service.token()
    verifier.verify(token)

    clock.advance(1805)
    verifier.verify(token)
    clock.advance(10)

    assert refusal(verifier, token) == ("token_expired", 401)
    assert refusal(verifier, service.token(exp=int(time.time()))) == ("token_expired", 401)


def test_a_token_of_a_key_that_is_no_longer_published_is_refused(
    make_verifier: Make, service: HostileService, clock: Any
) -> None:
    verifier = make_verifier(clock=clock)
    old = service.token()
    verifier.verify(old)

    service.key = SigningKey("second")
    clock.advance(11)
    verifier.verify(service.token())

    assert refusal(verifier, old) == ("token_invalid", 401)


def test_omitted_permissions_are_asked_for_when_they_are_needed(
    make_verifier: Make, service: HostileService
) -> None:
    verifier = make_verifier()
    token = service.token(without=("permissions",), permissions_omitted=True)

    found = verifier.verify(token)

    assert (found.checked, found.can("media:read"), found.can("media:delete")) == (
        "signature",
        True,
        False,
    )
    assert verifier.verify(token).can("media:read")
    assert service.counts[VERIFY] == 1


def test_omitted_permissions_cannot_be_known_in_an_outage(
    make_verifier: Make, service: HostileService
) -> None:
    service.reply(VERIFY, problem(503, "service_unavailable", Retry_After="7"))
    verifier = make_verifier()
    token = service.token(without=("permissions",), permissions_omitted=True)

    found = verifier.verify(token)

    assert found.id == USER
    with pytest.raises(Unavailable) as unavailable:
        found.can("media:read")
    assert unavailable.value.retry_after == 7
    service.reply(VERIFY, Reply(document=service.verified()))
    assert verifier.verify(token).can("media:read")


def test_fresh_asks_the_service_each_time(make_verifier: Make, service: HostileService) -> None:
    verifier = make_verifier()
    token = service.token()
    service.reply(VERIFY, Reply(document=service.verified(permissions=["media:delete"])))

    found = verifier.verify(token, fresh=True)
    verifier.verify(token, fresh=True)

    assert (found.checked, list(found.permissions)) == ("service", ["media:delete"])
    assert service.counts[VERIFY] == 2
    assert service.requests[-1].bearer == token
    for code in ("token_revoked", "token_expired", "token_invalid"):
        service.reply(VERIFY, problem(401, code))
        assert refusal(verifier, token, fresh=True) == (code, 401)
    verifier.verify(token)


def test_made_up_tokens_cost_no_request(make_verifier: Make, service: HostileService) -> None:
    verifier = make_verifier()
    verifier.warm()

    refusal(verifier, service.token(key=SigningKey("first")), fresh=True)
    refusal(verifier, KEY[:-1] + "8")

    assert service.counts[VERIFY] == 0


@pytest.mark.parametrize("code", ["password_change_required", "mfa_enrollment_required"])
def test_a_restricted_session_has_no_permissions(
    make_verifier: Make, service: HostileService, code: str
) -> None:
    service.reply(VERIFY, problem(403, code))

    found = make_verifier().verify(service.token(permissions=[], roles=[]), fresh=True)

    assert (found.id, found.roles, len(found.permissions)) == (USER, (), 0)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=302, headers={"Location": "http://127.0.0.1:1/"}),
        Reply(status=401, document={}),
        Reply(status=401, document={"code": "authentication_required"}),
        Reply(status=403, document={"code": "permission_denied"}),
        Reply(status=404, document={"code": "not_found"}),
        Reply(status=500, body=b"<html>"),
        Reply(status=200, body=b"{"),
        Reply(status=200, body=b"[" * 100_000),
        Reply(status=200, body=b" " * 300_000),
        Reply(status=200, document={"active": "true"}),
        Reply(status=200, document=[1]),
        Reply(is_cut=True),
    ],
    ids=lambda reply: f"{reply.status}-{len(reply.content)}",
)
def test_an_answer_that_makes_no_sense_is_an_outage_and_no_401(
    make_verifier: Make, service: HostileService, reply: Reply
) -> None:
    verifier = make_verifier()
    service.reply(VERIFY, reply)

    with pytest.raises(Unavailable):
        verifier.verify(service.token(), fresh=True)


@pytest.mark.parametrize(
    "change",
    [
        {"user_id": "another"},
        {"user_id": 5},
        {"permissions": "media:*"},
        {"roles": [1]},
        {"actor_type": "god"},
        {"expires_at": "tomorrow"},
    ],
)
def test_an_answer_about_another_caller_is_an_outage(
    make_verifier: Make, service: HostileService, change: dict[str, Any]
) -> None:
    service.reply(VERIFY, Reply(document=service.verified(**change)))

    with pytest.raises(Unavailable):
        make_verifier().verify(service.token(), fresh=True)


def test_a_key_is_always_asked_for(make_verifier: Make, service: HostileService) -> None:
    answer = service.verified(
        actor_type="service", session_id=None, key_id=SESSION, expires_at=None
    )
    service.reply(VERIFY, Reply(document=answer))
    verifier = make_verifier()

    found = verifier.verify(KEY)
    verifier.verify(KEY)

    assert (found.type, found.key_id, found.session_id) == ("service", SESSION, None)
    assert (found.expires_at, found.checked) == (None, "service")
    assert service.counts[VERIFY] == 2
    service.reply(VERIFY, problem(403, "network_not_allowed"))
    assert refusal(verifier, KEY) == ("network_not_allowed", 403)


@pytest.mark.parametrize(
    ("networks", "address", "is_allowed"),
    [
        (["192.0.2.0/24"], "192.0.2.7", True),
        (["192.0.2.0/24"], "::ffff:192.0.2.7", True),
        (["192.0.2.0/24", "2001:db8::/32"], "2001:db8::1", True),
        (["192.0.2.0/24"], "198.51.100.1", False),
        (["192.0.2.0/24"], "2001:db8::1", False),
        (["192.0.2.0/24"], None, False),
        (["192.0.2.0/24"], "unix:", False),
        ([], "192.0.2.7", False),
        (None, None, True),
    ],
)
def test_a_bound_key_works_in_its_networks(
    make_verifier: Make,
    service: HostileService,
    networks: list[str] | None,
    address: str | None,
    is_allowed: bool,
) -> None:
    answer = service.introspected(
        token_type="api_key", actor_type="service", allowed_networks=networks
    )
    service.reply(INTROSPECT, Reply(document=answer))
    verifier = make_verifier(credentials=ApiKey("mine"))

    if is_allowed:
        assert verifier.verify(KEY, address=address).key_id == SESSION
    else:
        assert refusal(verifier, KEY, address=address) == ("network_not_allowed", 403)


def test_hs256_asks_the_service(make_verifier: Make, service: HostileService) -> None:
    claims = jwt.decode(service.token(), options={"verify_signature": False})
    token = jwt.encode(claims, "secret " * 8, algorithm="HS256", headers={"typ": "at+jwt"})
    old = jwt.encode(
        {**claims, "exp": 1}, "secret " * 8, algorithm="HS256", headers={"typ": "at+jwt"}
    )
    refresh = jwt.encode(claims, "secret " * 8, algorithm="HS256", headers={"typ": "rt+jwt"})
    verifier = make_verifier(algorithm=None)
    verifier.warm()

    assert verifier.verify(token).checked == "service"
    assert refusal(verifier, old) == ("token_expired", 401)
    assert refusal(verifier, refresh) == ("token_invalid", 401)
    assert service.counts[VERIFY] == 1


def test_a_closed_verifier_says_so(make_verifier: Make, service: HostileService) -> None:
    verifier = make_verifier()
    verifier.close()
    verifier.close()

    with pytest.raises(Unavailable):
        verifier.verify(service.token())
