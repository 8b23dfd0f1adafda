"""Forged tokens: each raises TokenInvalid and no other exception.

Most have the genuine signature, so that only the rule under test can reject them (RFC 8725 §3).
"""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tokens import (
    ALGORITHMS,
    ASYMMETRIC,
    GRANT,
    SESSION_ID,
    USER_ID,
    RefreshForge,
    TokenStage,
    encoded,
    hmac_signed,
    segment,
    token_stage,
)
from userapi.authentication.key_files import PrivateKey, PublicKey, public_jwk
from userapi.authentication.refusals import TokenExpired, TokenInvalid

Forge = Callable[[TokenStage], str]
LONG = "9" * 5000
WRONG_VALUES: dict[str, object] = {
    "missing": ...,
    "null": None,
    "as a fraction": 1.5,
    "as an object": {},
}


@pytest.fixture(scope="module", params=ALGORITHMS)
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TokenStage]:
    with token_stage(request.param, tmp_path_factory.mktemp("keys")) as stage:
        yield stage


@pytest.fixture(scope="module", params=ASYMMETRIC)
def asymmetric(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TokenStage]:
    with token_stage(request.param, tmp_path_factory.mktemp("keys")) as stage:
        yield stage


def with_claims(**changes: Any) -> Forge:
    return lambda stage: stage.sign(stage.claims(**changes))


def with_header(**changes: Any) -> Forge:
    return lambda stage: stage.sign(header=stage.header(**changes))


def with_member(text: str) -> Forge:
    """Insert a member into the JSON text of the claims, also one that no encoder writes."""
    return lambda stage: stage.sign(json.dumps(stage.claims())[:-1] + f", {text}}}")


def instead_of(claim: str, text: str) -> Forge:
    """Replace the value of a claim by any JSON text."""

    def forge(stage: TokenStage) -> str:
        rest = json.dumps(stage.claims(**{claim: ...}))
        return stage.sign(f'{rest[:-1]}, "{claim}": {text}}}')

    return forge


def at(claim: str, seconds: int) -> Forge:
    return lambda stage: stage.sign(
        stage.claims(**{claim: int(stage.clock.now().timestamp()) + seconds})
    )


def unsigned(algorithm: str) -> Forge:
    return lambda s: f"{segment(s.header(alg=algorithm))}.{segment(s.claims())}."


def own_key(stage: TokenStage) -> Any:
    """Return a new key of the configured algorithm that the service does not have."""
    made: dict[str, Callable[[], Any]] = {
        "HS256": lambda: b"a secret that only the attacker knows",
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
        "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    }
    return made[stage.keys.algorithm]()


def by_own_key(stage: TokenStage) -> str:
    return stage.sign(key=own_key(stage))


def with_own_key_brought_along(stage: TokenStage) -> str:
    key = own_key(stage)
    if isinstance(key, PrivateKey):
        jwk = public_jwk(key.public_key(), stage.keys.algorithm)
    else:
        jwk = {"kty": "oct", "k": encoded(key)}
    return stage.sign(header=stage.header(jwk=jwk), key=key)


def with_own_key_elsewhere(member: str, value: object) -> Forge:
    return lambda s: s.sign(header=s.header(**{member: value}), key=own_key(s))


def with_another_signature(stage: TokenStage) -> str:
    body, _, signature = stage.access.issue(GRANT).token.rpartition(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    raw[len(raw) // 2] ^= 1
    return f"{body}.{encoded(bytes(raw))}"


def with_other_claims_under_a_good_signature(stage: TokenStage) -> str:
    header, _, signature = stage.access.issue(GRANT).token.split(".")
    return f"{header}.{segment(stage.claims(permissions=['*']))}.{signature}"


def with_spare_bits(stage: TokenStage) -> str:
    """Change bits of the last character that base64 does not use: another text, same bytes."""
    token = stage.sign(key=None)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(token[-1])
    return token[:-1] + alphabet[last ^ 1]


FORGED: dict[str, Forge] = {
    # Not a token at all
    "empty": lambda s: "",
    "dots": lambda s: "..",
    "one segment": lambda s: "abc",
    "two segments": lambda s: s.sign().rpartition(".")[0],
    "four segments": lambda s: s.sign() + ".AAAA",
    "five segments, as encrypted": lambda s: "a.b.c.d.e",
    "beyond ASCII": lambda s: s.sign() + "é",
    "lone surrogate": lambda s: "\ud800" + s.sign(),
    "null byte": lambda s: s.sign() + "\0",
    "space before": lambda s: " " + s.sign(),
    "line feed after": lambda s: s.sign() + "\n",
    "padding after": lambda s: s.sign() + "=" * (-len(s.sign().rpartition(".")[2]) % 4 or 1),
    "spare bits": with_spare_bits,
    "endless": lambda s: s.sign(s.claims(note="x" * 20_000)),
    "header is no base64": lambda s: "!!!!." + s.sign().split(".", 1)[1],
    "header is no JSON": lambda s: s.sign(header="{nonsense"),
    "header is a list": lambda s: s.sign(header=[]),
    "header is null": lambda s: s.sign(header="null"),
    "header is UTF-16": lambda s: s.sign(header=json.dumps(s.header()).encode("utf-16")),
    "header is deep": lambda s: s.sign(header="[" * 3000),
    "claims are no JSON": lambda s: s.sign("nonsense"),
    "claims are text": lambda s: s.sign('"text"'),
    "claims are a list": lambda s: s.sign([]),
    "claims are a number": lambda s: s.sign("1"),
    "claims are deep": lambda s: s.sign('{"a":' * 1500),
    "claims are no UTF-8": lambda s: s.sign(b'{"sub": "\xff"}'),
    "claims are UTF-16": lambda s: s.sign(json.dumps(s.claims()).encode("utf-16")),
    "claims are another token": lambda s: s.sign(s.sign(), s.header(cty="JWT")),
    # Algorithm (RFC 8725 §3.1, §3.2)
    "alg none": unsigned("none"),
    "alg None": unsigned("None"),
    "alg NONE": unsigned("NONE"),
    "alg empty": unsigned(""),
    "alg missing": with_header(alg=...),
    "alg unknown": with_header(alg="HS1"),
    "alg as a list": with_header(alg=["HS256"]),
    "alg as an object": with_header(alg={"a": 1}),
    "alg as a number": with_header(alg=1),
    "alg null": with_header(alg=None),
    "no signature": lambda s: s.sign().rpartition(".")[0] + ".",
    # Key (RFC 8725 §3.10)
    "own key under the good kid": by_own_key,
    "own key in jwk": with_own_key_brought_along,
    "own key at jku": with_own_key_elsewhere("jku", "http://127.0.0.1:1/jwks.json"),
    "own key at x5u": with_own_key_elsewhere("x5u", "http://127.0.0.1:1/cert.pem"),
    "own key in x5c": with_own_key_elsewhere("x5c", ["MIIB"]),
    "kid missing": with_header(kid=...),
    "kid empty": with_header(kid=""),
    "kid unknown": with_header(kid="another"),
    "kid with a space": lambda s: s.sign(header=s.header(kid=s.keys.active().kid + " ")),
    "kid as a path": with_header(kid="../../../../dev/null"),
    "kid as a file": with_header(kid="/etc/hostname"),
    "kid as the state file": with_header(kid="keys.json"),
    "kid with a null byte": with_header(kid="key\0.pem"),
    "kid as SQL": with_header(kid="' UNION SELECT 'secret' --"),
    "kid as a command": with_header(kid="key | sleep 10"),
    "kid as a URL": with_header(kid="http://127.0.0.1:1/key"),
    "kid huge": with_header(kid="k" * 10_000),
    "kid as a number": with_header(kid=1),
    "kid null": with_header(kid=None),
    "kid as a list": with_header(kid=["a"]),
    "kid as an object": with_header(kid={"a": 1}),
    "kid as a boolean": with_header(kid=True),
    # Signature
    "another signature": with_another_signature,
    "other claims": with_other_claims_under_a_good_signature,
    # Header
    "typ JWT": with_header(typ="JWT"),
    "typ missing": with_header(typ=...),
    "typ of a refresh token": with_header(typ="rt+jwt"),
    "typ null": with_header(typ=None),
    "typ as a list": with_header(typ=["at+jwt"]),
    "typ as a number": with_header(typ=1),
    "crit": with_header(crit=["exp"]),
    "crit of a known extension": with_header(crit=["b64"], b64=True),
    "crit empty": with_header(crit=[]),
    "crit null": with_header(crit=None),
    "b64 false": with_header(b64=False),
    "b64 false and critical": with_header(b64=False, crit=["b64"]),
    "b64 false, payload beside": lambda s: f"{segment(s.header(b64=False, crit=['b64']))}..AAAA",
    "header twice": lambda s: s.sign(header='{"alg": "none", ' + json.dumps(s.header())[1:]),
    # Claims
    "sub twice": with_member('"sub": "0192f0c1-7a3b-7c4d-8e5f-000000000000"'),
    "exp twice": with_member('"exp": 99999999999'),
    "member of a member twice": with_member('"note": {"a": 1, "a": 2}'),
    "NaN beside": with_member('"note": NaN'),
    "Infinity beside": with_member('"note": Infinity'),
    "endless number beside": with_member(f'"note": {LONG}'),
    "iat in the future": at("iat", 60),
    "nbf in the future": at("nbf", 60),
    "issuer of another": with_claims(iss="https://elsewhere.example"),
    "issuer as a list": with_claims(iss=["aima-user-service"]),
    "issuer that begins alike": with_claims(iss="aima-user-service.example"),
    "audience of another": with_claims(aud="elsewhere"),
    "audience as an object": with_claims(aud={"aima": 1}),
    "audience empty": with_claims(aud=[]),
    "audience with a number": with_claims(aud=["aima", 1]),
    "sub in braces": with_claims(sub=f"{{{USER_ID}}}"),
    "sub as a URN": with_claims(sub=f"urn:uuid:{USER_ID}"),
    "sub without hyphens": with_claims(sub=USER_ID.hex),
    "sub as a name": with_claims(sub="admin"),
    "sid as SQL": with_claims(sid=f"{SESSION_ID}' OR '1'='1"),
    "roles as text": with_claims(roles="admin"),
    "roles with a number": with_claims(roles=["user", 1]),
    "permissions as an object": with_claims(permissions={"*": True}),
    "permissions with null": with_claims(permissions=[None]),
    "permissions omitted by a text": with_claims(permissions=..., permissions_omitted="true"),
    "permissions omitted by 1": with_claims(permissions=..., permissions_omitted=1),
    "permissions omitted and false": with_claims(permissions=..., permissions_omitted=False),
    "permissions omitted and there": with_claims(permissions_omitted=True),
    "jti empty": with_claims(jti=""),
    "sv negative": with_claims(sv=-1),
    "sv as text": with_claims(sv="3"),
    "sv as a boolean": with_claims(sv=True),
    **{
        f"{claim} {kind}": instead_of(claim, text)
        for claim in ("iat", "nbf", "exp")
        for kind, text in {
            "as text": '"1999999999"',
            "as a boolean": "true",
            "as a float": "1999999999.5",
            "as a float without fraction": "1999999999.0",
            "in the billions of years": "1e300",
            "infinite": "1e999",
            "NaN": "NaN",
            "negative": "-1",
            "huge": "9" * 400,
            "endless": LONG,
            "as a list": "[1999999999]",
            "null": "null",
        }.items()
    },
    **{
        f"{claim} {kind}": with_claims(**{claim: value})
        for claim in ("iss", "aud", "sub", "sid", "jti", "roles", "permissions", "sv")
        for kind, value in WRONG_VALUES.items()
    },
    **{f"{claim} missing": with_claims(**{claim: ...}) for claim in ("iat", "nbf", "exp")},
}


def test_the_unmodified_token_is_valid(stage: TokenStage) -> None:
    """Otherwise every forged token could be rejected for the same wrong reason."""
    assert stage.access.verify(stage.sign()).user_id == USER_ID


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_invalid(stage: TokenStage, name: str) -> None:
    token = FORGED[name](stage)

    with pytest.raises(TokenInvalid):
        stage.access.verify(token)


# Refresh tokens have one key, which no header names, and neither nbf nor permissions.
OF_ACCESS_TOKENS = ("kid ", "nbf ", "roles ", "permissions ", "iat in the future")
FORGED_REFRESH: dict[str, Forge] = {
    **{name: forge for name, forge in FORGED.items() if not name.startswith(OF_ACCESS_TOKENS)},
    "typ of a refresh token": with_header(typ="at+jwt"),
    "header with blanks": lambda s: s.sign(header=json.dumps(s.header())),
    "other claims": lambda s: ".".join(
        [s.sign().split(".")[0], segment(s.claims(gen=8)), s.sign().split(".")[2]]
    ),
    "another signature": lambda s: s.sign().rpartition(".")[0] + "." + encoded(b"x" * 32),
    "gen missing": with_claims(gen=...),
    "gen as text": with_claims(gen="7"),
    "gen as a float": with_claims(gen=7.0),
    "gen as a boolean": with_claims(gen=True),
    "gen negative": with_claims(gen=-1),
}


@pytest.fixture(scope="module")
def refresh_forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RefreshForge]:
    with token_stage("HS256", tmp_path_factory.mktemp("keys")) as stage:
        yield RefreshForge(**{field.name: getattr(stage, field.name) for field in fields(stage)})


def test_the_unmodified_refresh_token_is_valid(refresh_forge: RefreshForge) -> None:
    assert refresh_forge.refresh.verify(refresh_forge.sign()).generation == 7


@pytest.mark.parametrize("name", FORGED_REFRESH)
def test_a_forged_refresh_token_is_invalid(refresh_forge: RefreshForge, name: str) -> None:
    token = FORGED_REFRESH[name](refresh_forge)

    with pytest.raises(TokenInvalid):
        refresh_forge.refresh.verify(token)


def test_a_forged_token_is_rejected_again(stage: TokenStage) -> None:
    token = by_own_key(stage)

    for _ in range(3):
        with pytest.raises(TokenInvalid):
            stage.access.verify(token)


def _texts_of(public: PublicKey) -> Iterator[bytes]:
    """Yield the texts of a published key that an attacker may use as a secret."""
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    yield pem
    yield pem.rstrip(b"\n")
    yield public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize("typ", ["at+jwt", "rt+jwt"])
def test_a_token_signed_with_the_public_key_as_secret_is_rejected(
    asymmetric: TokenStage, typ: str
) -> None:
    """The classic confusion: HS256 with the published key as the secret (RFC 8725 §2.1)."""
    active = asymmetric.keys.active()
    assert isinstance(active.public, PublicKey)
    forms = [*_texts_of(active.public), json.dumps(active.jwk).encode(), active.kid.encode()]
    header = asymmetric.header(alg="HS256", typ=typ)

    for form in forms:
        token = hmac_signed(header, asymmetric.claims(), form)
        with pytest.raises(TokenInvalid):
            asymmetric.access.verify(token)
        with pytest.raises(TokenInvalid):
            asymmetric.refresh.verify(token)


def test_the_secret_of_hs256_is_rejected_under_another_algorithm(asymmetric: TokenStage) -> None:
    secret = asymmetric.settings.jwt_secret_key.encode()

    with pytest.raises(TokenInvalid):
        asymmetric.access.verify(
            hmac_signed(asymmetric.header(alg="HS256"), asymmetric.claims(), secret)
        )


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_the_secret_is_accepted_with_one_algorithm_only(algorithm: str, tmp_path: Path) -> None:
    with token_stage("HS256", tmp_path) as stage:
        token = jwt.encode(
            stage.claims(),
            stage.settings.jwt_secret_key * 2,
            algorithm=algorithm,
            headers={"typ": "at+jwt", "kid": stage.keys.active().kid},
        )

        with pytest.raises(TokenInvalid):
            stage.access.verify(token)


def test_a_genuine_key_is_accepted_with_one_padding_only(tmp_path: Path) -> None:
    """The same RSA key could sign PS256, too; the token does not select the algorithm."""
    with token_stage("RS256", tmp_path) as stage:
        private = stage.keys.active().private
        assert isinstance(private, rsa.RSAPrivateKey)
        token = jwt.encode(
            stage.claims(),
            private,
            algorithm="PS256",
            headers={"typ": "at+jwt", "kid": stage.keys.active().kid},
        )

        with pytest.raises(TokenInvalid):
            stage.access.verify(token)


def _refused_or_read(stage: TokenStage, token: str) -> None:
    for verify in (stage.access.verify, stage.refresh.verify):
        try:
            verify(token)
        except (TokenInvalid, TokenExpired):
            pass


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(text=st.text(max_size=300) | st.from_regex(r"[A-Za-z0-9_=-]*(\.[A-Za-z0-9_=-]*){2}"))
@settings(deadline=None)
def test_any_text_is_rejected(stage: TokenStage, text: str) -> None:
    for verify in (stage.access.verify, stage.refresh.verify):
        with pytest.raises(TokenInvalid):
            verify(text)


@given(
    name=st.sampled_from(
        "iss aud sub sid sv jti iat nbf exp roles permissions type fresh csrf".split()
    ),
    value=json_values,
)
@settings(deadline=None)
def test_a_claim_of_any_type_is_read_or_rejected(
    stage: TokenStage, name: str, value: object
) -> None:
    _refused_or_read(stage, stage.sign(stage.claims(**{name: value})))


@given(
    name=st.sampled_from("alg typ kid crit b64 jku jwk x5u x5c cty zip".split()), value=json_values
)
@settings(deadline=None)
def test_a_header_of_any_type_is_read_or_rejected(
    stage: TokenStage, name: str, value: object
) -> None:
    _refused_or_read(stage, stage.sign(header=stage.header(**{name: value})))


@given(position=st.integers(0, 10_000), character=st.characters(max_codepoint=255))
@settings(deadline=None)
def test_a_token_with_any_character_changed_is_rejected(
    stage: TokenStage, position: int, character: str
) -> None:
    token = stage.sign()
    position %= len(token)
    changed = token[:position] + character + token[position + 1 :]

    if changed != token:
        with pytest.raises(TokenInvalid):
            stage.access.verify(changed)
