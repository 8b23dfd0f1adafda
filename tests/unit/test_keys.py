"""Signing keys: their files, their states, and the published part of them."""

import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jwt
import pytest
from click.testing import Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from tests.support.deployments import ENVIRONMENT, build_app
from tests.support.tokens import ASYMMETRIC, GRANT, USER_ID, TokenStage, stage_of, token_stage
from userapi.authentication import keys as keys_module
from userapi.authentication.key_files import PrivateKey, thumbprint
from userapi.authentication.key_folder import KeyState
from userapi.authentication.refusals import TokenInvalid
from userapi.clock import ManualClock
from userapi.errors import Unavailable
from userapi.settings import Settings, SettingsError
from userapi.wiring.keys import build_key_folder, build_key_ring


@pytest.fixture(params=ASYMMETRIC)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TokenStage]:
    with token_stage(request.param, tmp_path) as stage:
        yield stage


@pytest.fixture
def es256(tmp_path: Path) -> Iterator[TokenStage]:
    with token_stage("ES256", tmp_path) as stage:
        yield stage


@pytest.fixture
def always_reloading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reload the keys at every call instead of once a second."""
    monkeypatch.setattr(keys_module, "RELOAD_SECONDS", 0.0)


def settings_for(algorithm: str, instance_dir: Path, **environment: str) -> Settings:
    return Settings.from_env(
        {"ENVIRONMENT": "testing", "JWT_ALGORITHM": algorithm, **environment},
        instance_dir=instance_dir,
    )


def write_pem(
    path: Path, *keys: PrivateKey | ed448.Ed448PrivateKey, password: bytes | None = None
) -> Path:
    path.write_bytes(
        b"".join(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                (
                    serialization.BestAvailableEncryption(password)
                    if password
                    else serialization.NoEncryption()
                ),
            )
            for key in keys
        )
    )
    return path


def new_key() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def states(stage: TokenStage) -> dict[str, str]:
    return {record.kid: record.state for record in stage.folder.records()}


# Files


def test_the_first_keys_are_an_active_and_a_next_one(stage: TokenStage) -> None:
    assert sorted(states(stage).values()) == ["active", "next"]
    assert stage.folder.generate() == []


def test_only_the_owner_reads_the_keys(stage: TokenStage) -> None:
    folder = stage.settings.keys_folder

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {0o600}
    assert len(list(folder.glob("*.pem"))) == 2
    assert [path.name for path in folder.iterdir() if path.suffix not in {".pem", ".json"}] == [
        ".lock"
    ]


def test_concurrent_commands_lose_no_key(es256: TokenStage) -> None:
    """Two rotations that read the same state would leave a signing key without an entry."""
    with ThreadPoolExecutor(8) as operators:
        signed = list(operators.map(lambda _: es256.folder.rotate().kid, range(8)))

    assert len(set(signed)) == 8
    assert sorted(states(es256).values()) == ["active", "next"] + ["retired"] * 8
    assert {path.stem for path in es256.settings.keys_folder.glob("*.pem")} == set(states(es256))


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"keys": 1}', '{"keys": [{}]}', '{"keys": [{"kid": "x"}]}', "\udcff"],
)
def test_a_damaged_state_file_is_reported_at_the_start(es256: TokenStage, content: str) -> None:
    path = es256.settings.keys_folder / "keys.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))

    with pytest.raises(SettingsError, match=r"^JWT_KEYS_DIR: its keys.json cannot be read$"):
        build_key_ring(es256.settings, es256.clock)


def test_the_state_file_cannot_name_a_file_in_another_folder(
    es256: TokenStage, tmp_path: Path
) -> None:
    write_pem(tmp_path / "elsewhere.pem", new_key())
    path = es256.settings.keys_folder / "keys.json"
    document = json.loads(path.read_text())
    document["keys"][0]["kid"] = "../elsewhere"
    path.write_text(json.dumps(document))

    with pytest.raises(SettingsError, match="JWT_KEYS_DIR"):
        build_key_ring(es256.settings, es256.clock)


def test_a_missing_key_file_is_reported_at_the_start(es256: TokenStage) -> None:
    next(es256.settings.keys_folder.glob("*.pem")).unlink()

    with pytest.raises(SettingsError, match="^JWT_KEYS_DIR: "):
        build_key_ring(es256.settings, es256.clock)


def test_a_key_ring_can_be_built_without_a_key(tmp_path: Path) -> None:
    """`flask keys generate` needs an application before there is a key."""
    ring = build_key_ring(settings_for("ES256", tmp_path), ManualClock())

    with pytest.raises(SettingsError, match="^JWT_ALGORITHM: ES256 needs a key; run `flask keys"):
        ring.require_active()
    with pytest.raises(Unavailable):
        ring.active()
    assert ring.jwks() == {"keys": []}


def test_a_process_without_a_key_signs_as_soon_as_one_exists(
    tmp_path: Path, always_reloading: None
) -> None:
    settings, clock = settings_for("ES256", tmp_path), ManualClock()
    stage = stage_of(settings, clock)

    stage.folder.generate()

    stage.keys.require_active()
    with stage.app.app_context():
        assert stage.access.verify(stage.access.issue(GRANT).token).user_id == USER_ID


# Rotation


def test_the_next_key_is_published_before_it_signs(
    stage: TokenStage, always_reloading: None
) -> None:
    upcoming = {kid for kid, state in states(stage).items() if state == KeyState.NEXT}
    published = {key["kid"] for key in stage.keys.jwks()["keys"]}

    signing = stage.folder.rotate().kid

    assert {signing} == upcoming
    assert upcoming < published
    assert stage.keys.active().kid == signing


def test_a_running_process_reloads_the_keys_after_a_rotation(
    stage: TokenStage, always_reloading: None
) -> None:
    before = stage.access.issue(GRANT).token
    stage.access.verify(before)

    stage.folder.rotate()
    after = stage.access.issue(GRANT).token

    kids = [jwt.get_unverified_header(token)["kid"] for token in (before, after)]
    assert [states(stage)[kid] for kid in kids] == ["retired", "active"]
    assert stage.access.verify(before).user_id == USER_ID
    assert stage.access.verify(after).user_id == USER_ID


def test_a_rotation_takes_effect_within_seconds(es256: TokenStage) -> None:
    signing = es256.folder.rotate().kid

    deadline = time.monotonic() + 10
    while es256.keys.active().kid != signing:
        assert time.monotonic() < deadline, "the process still signs with the former key"
        time.sleep(0.05)


def test_an_unknown_key_id_reloads_the_keys_immediately(
    es256: TokenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rotations within a second: the other process signs with a key that was not published."""
    monkeypatch.setattr(keys_module, "RELOAD_SECONDS", 3600.0)
    monkeypatch.setattr(keys_module, "RELOAD_FOR_UNKNOWN_SECONDS", 0.0)
    es256.folder.rotate()
    es256.folder.rotate()
    other = stage_of(es256.settings, es256.clock)
    with other.app.app_context():
        token = other.access.issue(GRANT).token

    assert es256.access.verify(token).user_id == USER_ID


def test_many_unknown_key_ids_do_not_reload_the_keys(
    es256: TokenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "RELOAD_SECONDS", 3600.0)
    monkeypatch.setattr(keys_module, "RELOAD_FOR_UNKNOWN_SECONDS", 3600.0)
    es256.folder.rotate()
    (unpublished,) = (kid for kid, state in states(es256).items() if state == KeyState.NEXT)

    assert es256.keys.verifying(unpublished) is None


def test_a_token_names_the_key_that_signed_it_also_during_a_rotation(
    es256: TokenStage, always_reloading: None
) -> None:
    """The id was that of one load of the keys and the signature that of the next."""
    with ThreadPoolExecutor(1) as operator:
        rotations = operator.submit(lambda: [es256.folder.rotate() for _ in range(60)])
        while not rotations.done():
            assert es256.access.verify(es256.access.issue(GRANT).token).user_id == USER_ID

        assert len(rotations.result()) == 60


def test_a_retired_key_verifies_until_its_tokens_have_expired(
    stage: TokenStage, always_reloading: None
) -> None:
    retiring = stage.keys.active()
    stage.folder.rotate()

    stage.clock.advance(minutes=30, seconds=10)
    assert stage.keys.verifying(retiring.kid) is not None
    stage.clock.advance(minutes=1)

    assert stage.keys.verifying(retiring.kid) is None
    assert retiring.kid not in {key["kid"] for key in stage.keys.jwks()["keys"]}


def test_a_shorter_token_lifetime_does_not_affect_retired_keys(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    long = settings_for("ES256", tmp_path, JWT_ACCESS_TOKEN_EXPIRE_MINUTES="60")
    short = settings_for("ES256", tmp_path, JWT_ACCESS_TOKEN_EXPIRE_MINUTES="5")
    build_key_folder(long, clock).generate()
    stage = stage_of(long, clock)
    with stage.app.app_context():
        token = stage.access.issue(GRANT).token
    build_key_folder(long, clock).rotate()

    clock.advance(minutes=50)
    stage = stage_of(short, clock)

    with stage.app.app_context():
        assert stage.access.verify(token).user_id == USER_ID


def test_a_rotation_deletes_expired_keys(es256: TokenStage) -> None:
    over = es256.keys.active().kid
    es256.folder.rotate()
    es256.clock.advance(hours=1)

    es256.folder.rotate()

    assert over not in states(es256)
    assert not (es256.settings.keys_folder / f"{over}.pem").exists()
    assert sorted(states(es256).values()) == ["active", "next", "retired"]


def test_a_removed_key_invalidates_cached_tokens(es256: TokenStage, always_reloading: None) -> None:
    """After a leak of a key, tokens that the process had cached remained valid."""
    token, leaked = es256.access.issue(GRANT).token, es256.keys.active().kid
    es256.access.verify(token)
    es256.folder.rotate()
    es256.access.verify(token)

    path = es256.settings.keys_folder / "keys.json"
    document = json.loads(path.read_text())
    document["keys"] = [key for key in document["keys"] if key["kid"] != leaked]
    path.write_text(json.dumps(document))

    with pytest.raises(TokenInvalid):
        es256.access.verify(token)


@pytest.mark.parametrize("content", [b"", b"{", b'{"keys": []}', None])
def test_the_former_keys_remain_in_use_when_the_state_file_is_damaged(
    es256: TokenStage, always_reloading: None, content: bytes | None
) -> None:
    token = es256.access.issue(GRANT).token
    path = es256.settings.keys_folder / "keys.json"

    path.unlink() if content is None else path.write_bytes(content)

    assert es256.access.verify(token).user_id == USER_ID
    assert es256.access.verify(es256.access.issue(GRANT).token).user_id == USER_ID


# Algorithms


@pytest.mark.parametrize(("former", "present"), [("ES256", "EdDSA"), ("EdDSA", "RS256")])
def test_only_keys_of_the_configured_algorithm_verify(
    former: str, present: str, tmp_path: Path
) -> None:
    with token_stage(former, tmp_path) as before:
        token, kid = before.access.issue(GRANT).token, before.keys.active().kid

    with token_stage(present, tmp_path) as after:
        assert {key["alg"] for key in after.keys.jwks()["keys"]} == {present}
        assert after.keys.verifying(kid) is None
        with pytest.raises(TokenInvalid):
            after.access.verify(token)
        after.folder.rotate()

    with token_stage(former, tmp_path) as again:
        assert again.keys.active().kid == kid


MADE: dict[str, Callable[[], PrivateKey | ed448.Ed448PrivateKey]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
    "RSA-1024": lambda: rsa.generate_private_key(public_exponent=65537, key_size=1024),
    "RSA-2048": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
}


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
@pytest.mark.parametrize("kind", MADE)
def test_a_key_file_must_hold_a_key_of_the_algorithm(
    algorithm: str, kind: str, tmp_path: Path
) -> None:
    path = write_pem(tmp_path / "key.pem", MADE[kind]())
    settings = settings_for(algorithm, tmp_path, JWT_PRIVATE_KEY_FILE=str(path))

    if (algorithm, kind) in {("ES256", "P-256"), ("EdDSA", "Ed25519"), ("RS256", "RSA-2048")}:
        build_key_ring(settings, ManualClock()).require_active()
    else:
        with pytest.raises(
            SettingsError, match="^JWT_PRIVATE_KEY_FILE: must be an unencrypted PEM"
        ):
            build_key_ring(settings, ManualClock())


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_a_key_file_must_hold_a_key(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    settings = settings_for("ES256", tmp_path, JWT_PRIVATE_KEY_FILE=str(path))

    with pytest.raises(SettingsError, match="^JWT_PRIVATE_KEY_FILE: ") as refused:
        build_key_ring(settings, ManualClock())

    assert "nonsense" not in str(refused.value)


def test_an_encrypted_key_file_is_rejected(tmp_path: Path) -> None:
    path = write_pem(tmp_path / "key.pem", new_key(), password=b"secret")
    settings = settings_for("ES256", tmp_path, JWT_PRIVATE_KEY_FILE=str(path))

    with pytest.raises(SettingsError, match="^JWT_PRIVATE_KEY_FILE: "):
        build_key_ring(settings, ManualClock())


# One file


def test_the_key_file_signs_and_the_keys_of_the_folder_verify(
    es256: TokenStage, tmp_path: Path
) -> None:
    token = es256.access.issue(GRANT).token
    path = write_pem(tmp_path / "key.pem", new_key())

    with token_stage("ES256", tmp_path, JWT_PRIVATE_KEY_FILE=str(path)) as stage:
        issued = stage.access.issue(GRANT).token

        assert jwt.get_unverified_header(issued)["kid"] not in states(stage)
        assert stage.access.verify(issued).user_id == USER_ID
        assert stage.access.verify(token).user_id == USER_ID


def test_a_former_key_after_the_signing_key_verifies(tmp_path: Path) -> None:
    former, present = new_key(), new_key()
    path = write_pem(tmp_path / "key.pem", former)
    with token_stage("ES256", tmp_path, JWT_PRIVATE_KEY_FILE=str(path)) as stage:
        token = stage.access.issue(GRANT).token

    write_pem(path, present, former)
    with token_stage("ES256", tmp_path, JWT_PRIVATE_KEY_FILE=str(path)) as stage:
        issued = stage.access.issue(GRANT).token

        assert stage.access.verify(token).user_id == USER_ID
        assert stage.access.verify(issued).user_id == USER_ID
        assert len(stage.keys.jwks()["keys"]) == 2
        kids = {jwt.get_unverified_header(text)["kid"] for text in (token, issued)}
        assert len(kids) == 2


def test_a_replaced_key_file_is_reloaded(tmp_path: Path, always_reloading: None) -> None:
    path = write_pem(tmp_path / "key.pem", new_key())
    with token_stage("ES256", tmp_path, JWT_PRIVATE_KEY_FILE=str(path)) as stage:
        former = stage.keys.active().kid

        os.replace(write_pem(tmp_path / "new.pem", new_key()), path)

        assert stage.keys.active().kid != former


# Published keys


def test_no_private_member_is_published(stage: TokenStage) -> None:
    public = {
        "ES256": {"kty", "crv", "x", "y", "alg", "use", "kid"},
        "EdDSA": {"kty", "crv", "x", "alg", "use", "kid"},
        "RS256": {"kty", "n", "e", "alg", "use", "kid"},
    }

    published = stage.keys.jwks()["keys"]

    assert len(published) == 2
    assert [set(key) for key in published] == [public[stage.keys.algorithm]] * 2
    assert {(key["alg"], key["use"]) for key in published} == {(stage.keys.algorithm, "sig")}


def test_nothing_is_published_under_hs256(tmp_path: Path) -> None:
    with token_stage("HS256", tmp_path) as stage:
        assert stage.keys.jwks() == {"keys": []}
        assert not stage.settings.keys_folder.exists()


def test_a_caller_cannot_change_the_published_keys(es256: TokenStage) -> None:
    es256.keys.jwks()["keys"][0]["kid"] = "changed"

    assert "changed" not in {key["kid"] for key in es256.keys.jwks()["keys"]}


def test_the_id_of_a_key_is_its_thumbprint() -> None:
    """The example of RFC 7638 §3.1."""
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1"
        "L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4"
        "QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbO"
        "pbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csF"
        "Cur-kEgU8awapJzKnqDKgw"
    )

    kid = thumbprint({"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"})

    assert kid == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


# Commands


def flask_keys(
    *arguments: str, instance_dir: Path, clock: ManualClock | None = None, **environment: str
) -> Result:
    settings = {**ENVIRONMENT, "JWT_ALGORITHM": "ES256", **environment}
    app = build_app(settings, clock=clock or ManualClock(), instance_dir=instance_dir)
    return app.test_cli_runner().invoke(args=["keys", *arguments])


def test_a_command_generates_the_first_keys(tmp_path: Path) -> None:
    """The command needs an application, which did not start without a key."""
    empty = flask_keys("list", instance_dir=tmp_path)
    made = flask_keys("generate", instance_dir=tmp_path)
    again = flask_keys("generate", instance_dir=tmp_path)

    assert (empty.exit_code, made.exit_code, again.exit_code) == (0, 0, 0)
    assert "There are no keys." in empty.output
    assert made.output.count("Created ") == 2
    assert "An active key and a next key already exist" in again.output


def test_the_list_shows_the_purpose_of_each_key(tmp_path: Path) -> None:
    flask_keys("generate", instance_dir=tmp_path)
    rotated = flask_keys("rotate", instance_dir=tmp_path)

    listed = flask_keys("list", instance_dir=tmp_path)

    head, *rows = listed.output.splitlines()
    assert head.split() == ["KEY", "ALGORITHM", "STATE", "CREATED", "SINCE"]
    (signing,) = (row for row in rows if row.endswith("signs now"))
    assert signing.split()[:3] == [rotated.output.split()[0], "ES256", "active"]
    assert sum("published; signs after `rotate`" in row for row in rows) == 1
    assert sum("retired" in row and "verifies until 20" in row for row in rows) == 1


def test_a_rotation_to_a_recently_generated_key_prints_a_warning(tmp_path: Path) -> None:
    clock = ManualClock()
    flask_keys("generate", instance_dir=tmp_path, clock=clock)

    early = flask_keys("rotate", instance_dir=tmp_path, clock=clock)
    clock.advance(minutes=6)
    late = flask_keys("rotate", instance_dir=tmp_path, clock=clock)

    assert "may reject its tokens" in early.output
    assert "may reject its tokens" not in late.output
    assert (early.exit_code, late.exit_code) == (0, 0)


@pytest.mark.parametrize("name", ["generate", "rotate"])
def test_a_key_file_is_not_rotated_by_commands(name: str, tmp_path: Path) -> None:
    path = write_pem(tmp_path / "key.pem", new_key())

    refused = flask_keys(name, instance_dir=tmp_path, JWT_PRIVATE_KEY_FILE=str(path))
    listed = flask_keys("list", instance_dir=tmp_path, JWT_PRIVATE_KEY_FILE=str(path))

    assert refused.exit_code == 1
    assert "JWT_PRIVATE_KEY_FILE contains the key that signs." in refused.output
    assert "signs now (JWT_PRIVATE_KEY_FILE)" in listed.output


@pytest.mark.parametrize("name", ["generate", "rotate", "list"])
def test_key_commands_are_rejected_under_hs256(name: str, tmp_path: Path) -> None:
    refused = flask_keys(name, instance_dir=tmp_path, JWT_ALGORITHM="HS256")

    assert refused.exit_code == 1
    assert "JWT_ALGORITHM is HS256" in refused.output


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = settings_for("ES256", tmp_path, JWT_KEYS_DIR=str(tmp_path / "file" / "keys"))

    with pytest.raises(SettingsError, match="^JWT_KEYS_DIR: must be a writable folder"):
        build_key_folder(settings, ManualClock()).generate()


# The first start


def test_development_creates_a_key_pair_by_default(tmp_path: Path) -> None:
    settings = Settings.from_env({}, instance_dir=tmp_path)

    first = build_key_ring(settings, ManualClock())
    second = build_key_ring(settings, ManualClock())

    assert first.algorithm == "ES256"
    assert first.active().kid == second.active().kid
    assert {key["alg"] for key in first.jwks()["keys"]} == {"ES256"}
    assert len(first.jwks()["keys"]) == 2


def test_processes_that_start_concurrently_use_the_same_key_pair(tmp_path: Path) -> None:
    settings = Settings.from_env({}, instance_dir=tmp_path)

    with ThreadPoolExecutor(8) as pool:
        rings = list(pool.map(lambda _: build_key_ring(settings, ManualClock()), range(8)))

    assert len({ring.active().kid for ring in rings}) == 1
    assert len(list((tmp_path / "keys").glob("*.pem"))) == 2


@pytest.mark.parametrize(
    "chosen",
    [{"JWT_ALGORITHM": "ES256"}, {"ENVIRONMENT": "production"}],
    ids=["algorithm", "production"],
)
def test_no_key_is_created_in_production_or_where_the_operator_chose(
    chosen: dict[str, str], tmp_path: Path
) -> None:
    settings = Settings.from_env(
        {
            "SECRET_KEY": "kP3vWm8sQz1xLr6tYb9nHd4gJf7cUa2e",
            "PASSWORD_PEPPER": "Xd7fGh2jKl5zXc8vBn1mQw4eRt6yUi9o",
            "ENCRYPTION_KEY": "pR9sTu1vWx3yZa5bCd7eFg9hIj1kLm3n",
            "DATABASE_URL": "postgresql://userapi:pa55@db.internal/userapi",
            **chosen,
        },
        instance_dir=tmp_path,
    )

    with pytest.raises(SettingsError, match="run `flask keys generate`.*or set JWT_SECRET_KEY"):
        build_key_ring(settings, ManualClock()).require_active()
    assert not (tmp_path / "keys").exists()
