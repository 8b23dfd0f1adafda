"""Access tokens and refresh tokens: content, verification and expiry."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.support.tokens import (
    ALGORITHMS,
    ASYMMETRIC,
    GRANT,
    SESSION_ID,
    USER_ID,
    TokenStage,
    stage_of,
    token_stage,
)
from userapi.authentication.claims_cache import ClaimsCache
from userapi.authentication.refusals import TokenExpired, TokenInvalid
from userapi.authentication.tokens import IssuedToken


@pytest.fixture(scope="module", params=ALGORITHMS)
def lasting_stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TokenStage]:
    with token_stage(request.param, tmp_path_factory.mktemp("keys")) as stage:
        yield stage


@pytest.fixture
def stage(lasting_stage: TokenStage) -> Iterator[TokenStage]:
    """Return a stage for each algorithm, with shared keys: generating RSA takes seconds."""
    yield lasting_stage
    lasting_stage.clock.reset()


@pytest.fixture
def hs256(tmp_path: Path) -> Iterator[TokenStage]:
    with token_stage("HS256", tmp_path) as stage:
        yield stage


def refresh_token(stage: TokenStage, generation: int = 0, **changes: Any) -> IssuedToken:
    now = stage.clock.now()
    arguments: dict[str, Any] = {
        "user_id": USER_ID,
        "session_id": SESSION_ID,
        "session_version": 3,
        "generation": generation,
        "rotated_at": now,
        "expires_at": now + timedelta(days=7),
    }
    return stage.refresh.issue(**arguments | changes)


def test_a_token_contains_what_was_granted(stage: TokenStage) -> None:
    issued = stage.access.issue(GRANT)

    claims = stage.access.verify(issued.token)

    assert (claims.user_id, claims.session_id, claims.session_version) == (USER_ID, SESSION_ID, 3)
    assert claims.roles == ("user", "moderator")
    assert claims.permissions == ("users:read",)
    assert claims.jti == issued.jti
    assert claims.expires_at == int(issued.expires_at.timestamp())
    assert claims.expires_at - claims.issued_at == 30 * 60


def test_the_header_names_type_algorithm_and_key(stage: TokenStage) -> None:
    header = jwt.get_unverified_header(stage.access.issue(GRANT).token)

    assert header == {
        "typ": "at+jwt",
        "alg": stage.keys.algorithm,
        "kid": stage.keys.active().kid,
    }


def test_no_two_tokens_have_the_same_id(hs256: TokenStage) -> None:
    ids = {hs256.access.issue(GRANT).jti for _ in range(100)}

    assert len(ids) == 100


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_the_published_keys_verify_a_token(algorithm: str, tmp_path: Path) -> None:
    with token_stage(algorithm, tmp_path) as stage:
        token = stage.access.issue(GRANT).token
        published = jwt.PyJWKSet.from_dict(json.loads(json.dumps(stage.keys.jwks())))

        key = published[jwt.get_unverified_header(token)["kid"]]
        claims = jwt.decode(token, key, issuer="aima-user-service", audience="aima")

    assert claims["sub"] == str(USER_ID)


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt"])
def test_the_type_may_be_written_as_a_media_type(stage: TokenStage, typ: str) -> None:
    token = stage.sign(header=stage.header(typ=typ))

    assert stage.access.verify(token).user_id == USER_ID


def test_a_token_is_valid_until_its_expiry_and_the_leeway(stage: TokenStage) -> None:
    token = stage.access.issue(GRANT).token

    stage.clock.advance(minutes=30, seconds=8)
    stage.access.verify(token)
    stage.clock.advance(seconds=3)

    with pytest.raises(TokenExpired):
        stage.access.verify(token)


def test_a_cached_token_expires(stage: TokenStage) -> None:
    token = stage.access.issue(GRANT).token
    stage.access.verify(token)
    stage.access.verify(token)

    stage.clock.advance(minutes=31)

    for _ in range(2):
        with pytest.raises(TokenExpired):
            stage.access.verify(token)


def test_a_clock_may_run_behind_by_less_than_the_leeway(hs256: TokenStage) -> None:
    token = hs256.access.issue(GRANT).token

    hs256.clock.advance(seconds=-8)
    hs256.access.verify(token)
    hs256.clock.advance(seconds=-4)

    with pytest.raises(TokenInvalid):
        hs256.access.verify(token)


def test_tokens_are_valid_after_a_restart(stage: TokenStage) -> None:
    token = stage.access.issue(GRANT).token

    restarted = stage_of(stage.settings, stage.clock)
    with restarted.app.app_context():
        claims = restarted.access.verify(token)

    assert claims.user_id == USER_ID


def test_the_cache_of_tokens_is_bounded_and_every_token_verifies(
    hs256: TokenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hs256.access, "_cache", ClaimsCache(clock=hs256.clock, max_tokens=4))
    issued = [hs256.access.issue(GRANT) for _ in range(20)]

    seen = [hs256.access.verify(one.token).jti for one in issued + issued]

    assert seen == [one.jti for one in issued + issued]
    assert len(hs256.access._cache._claims) == 4


def test_claims_leave_the_cache_when_their_token_expires(
    hs256: TokenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hs256.access, "_cache", ClaimsCache(clock=hs256.clock))
    for _ in range(20):
        hs256.access.verify(hs256.access.issue(GRANT).token)
    hs256.clock.advance(hours=1)

    hs256.access.verify(hs256.access.issue(GRANT).token)

    assert len(hs256.access._cache._claims) == 1


def test_concurrent_threads_each_verify_their_own_token(hs256: TokenStage) -> None:
    issued = [hs256.access.issue(GRANT) for _ in range(16)]
    together = threading.Barrier(len(issued))

    def verify(one: IssuedToken) -> bool:
        together.wait(10)
        with hs256.app.app_context():
            return all(hs256.access.verify(one.token).jti == one.jti for _ in range(200))

    with ThreadPoolExecutor(len(issued)) as threads:
        assert all(threads.map(verify, issued))


def test_a_refresh_token_names_its_session_and_generation(stage: TokenStage) -> None:
    issued = refresh_token(stage, generation=5)

    claims = stage.refresh.verify(issued.token)

    assert (claims.user_id, claims.session_id) == (USER_ID, SESSION_ID)
    assert (claims.generation, claims.session_version) == (5, 3)
    assert claims.jti == issued.jti
    assert jwt.get_unverified_header(issued.token) == {"typ": "rt+jwt", "alg": "HS256"}


def test_the_successor_is_the_same_token_after_a_restart(stage: TokenStage) -> None:
    moment = datetime.fromisoformat("2026-05-04T03:02:01.987654+00:00")
    times = {"rotated_at": moment, "expires_at": moment + timedelta(days=7)}
    first = refresh_token(stage, generation=7, **times)

    again = refresh_token(stage_of(stage.settings, stage.clock), generation=7, **times)

    assert again == first


@pytest.mark.parametrize(
    "change", [{"generation": 8}, {"session_version": 4}, {"session_id": USER_ID}]
)
def test_another_generation_has_another_token(hs256: TokenStage, change: dict[str, Any]) -> None:
    one, other = refresh_token(hs256, generation=7), refresh_token(hs256, **change)

    assert other.token != one.token
    assert other.jti != one.jti


def test_a_refresh_token_expires_without_leeway(hs256: TokenStage) -> None:
    token = refresh_token(hs256).token

    hs256.clock.advance(days=7, seconds=1)

    with pytest.raises(TokenExpired):
        hs256.refresh.verify(token)


def test_refresh_tokens_do_not_change_with_the_algorithm_of_access_tokens(tmp_path: Path) -> None:
    with token_stage("HS256", tmp_path) as before:
        token = refresh_token(before).token

    with token_stage("EdDSA", tmp_path) as after:
        assert after.refresh.verify(token).session_id == SESSION_ID


def test_neither_kind_of_token_is_accepted_as_the_other(stage: TokenStage) -> None:
    access, refresh = stage.access.issue(GRANT).token, refresh_token(stage).token

    with pytest.raises(TokenInvalid):
        stage.refresh.verify(access)
    with pytest.raises(TokenInvalid):
        stage.access.verify(refresh)


def test_an_access_token_signed_with_the_key_of_refresh_tokens_is_rejected(
    hs256: TokenStage,
) -> None:
    secret = hs256.settings.secret_key.encode()

    with pytest.raises(TokenInvalid):
        hs256.access.verify(hs256.sign(key=secret))


def test_the_type_of_a_token_is_recognized_by_its_header(stage: TokenStage) -> None:
    assert stage.refresh.looks_like_refresh_token(refresh_token(stage).token)
    assert not stage.refresh.looks_like_refresh_token(stage.access.issue(GRANT).token)
    assert not stage.refresh.looks_like_refresh_token("nonsense")
