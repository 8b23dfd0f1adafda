"""Dockerfile and docker-compose.yml, as far as they can be checked without a container engine."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from userapi.clock import SystemClock
from userapi.settings import Settings, variables
from userapi.wiring.keys import build_key_ring

REPOSITORY = Path(__file__).resolve().parents[2]
# Read by gunicorn.conf.py, not by the settings.
GUNICORN_VARIABLES = {
    "BIND",
    "DRAIN_SECONDS",
    "GUNICORN_THREADS",
    "KEEPALIVE_SECONDS",
    "WEB_CONCURRENCY",
}
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("migration", "service", "worker")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of a Dockerfile, continuations joined."""

    keyword: str
    value: str

    @property
    def words(self) -> list[str]:
        """The value, split at spaces, without flags."""
        return [word for word in self.value.split() if not word.startswith("--")]


def _stages() -> list[list[Instruction]]:
    text = (REPOSITORY / "Dockerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    stages: list[list[Instruction]] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        keyword, _, value = line.strip().partition(" ")
        if keyword == "FROM":
            stages.append([])
        stages[-1].append(Instruction(keyword, value.strip()))
    return stages


STAGES = _stages()
FINAL = STAGES[-1]


def _only(keyword: str) -> Instruction:
    (found,) = (instruction for instruction in FINAL if instruction.keyword == keyword)
    return found


def _variables(service: dict[str, Any]) -> dict[str, str]:
    """Return the environment as it is where the operator has set nothing."""
    return {
        name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))
        for name, value in service.get("environment", {}).items()
    }


def _images() -> Iterator[str]:
    for stage in STAGES:
        yield stage[0].words[0]
    for service in SERVICES.values():
        yield service["image"]


@pytest.mark.parametrize("image", sorted(set(_images())))
def test_every_image_names_a_version(image: str) -> None:
    assert re.search(r":[^:/]+$", image)
    assert not image.endswith(":latest")


def test_the_image_is_built_in_one_stage_and_runs_from_another() -> None:
    assert len(STAGES) == 2
    assert FINAL[0].value.startswith("python:3.11-slim")
    assert any("--from=builder" in i.value for i in FINAL if i.keyword == "COPY")


def test_the_service_runs_as_a_numbered_user_that_is_not_root() -> None:
    user, _, group = _only("USER").value.partition(":")

    assert int(user) > 0
    assert int(group) > 0


def test_the_image_holds_nothing_that_installs_or_builds() -> None:
    commands = " ".join(i.value for i in FINAL if i.keyword == "RUN")

    assert "apt" not in commands
    assert "pip install" not in commands
    assert "pip uninstall" in commands
    # Nothing is fetched into it from outside, and no whole context with it.
    assert not [i for i in FINAL if i.keyword == "ADD"]
    assert not [i for i in FINAL if i.keyword == "COPY" and "--from=builder" not in i.value]


def test_the_image_asks_itself_whether_it_lives() -> None:
    _, _, command = _only("HEALTHCHECK").value.partition("CMD ")
    program, _, script = json.loads(command)

    assert program == "python"
    assert "http://127.0.0.1:8000/api/v1/health/live" in script
    compile(script, "HEALTHCHECK", "exec")


def test_signals_reach_gunicorn_without_a_shell_in_between() -> None:
    assert json.loads(_only("CMD").value) == ["gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]


def test_whatever_the_build_copies_is_there_and_let_through() -> None:
    ignore = (REPOSITORY / ".dockerignore").read_text("utf-8").splitlines()
    copied = {
        source
        for instruction in STAGES[0]
        if instruction.keyword == "COPY"
        for source in instruction.words[:-1]
    }

    assert copied == {"gunicorn.conf.py", "migrations", "requirements.txt", "userapi", "wsgi.py"}
    assert all((REPOSITORY / source).exists() for source in copied)
    assert "*" in ignore
    assert {line[1:] for line in ignore if line.startswith("!")} == copied


def test_the_deployment_is_whole() -> None:
    ours = {"migration", "proxy", "service", "worker"}
    assert set(SERVICES) == ours | {"grafana", "postgresql", "prometheus", "rabbitmq", "redis"}
    assert SERVICES["service"]["deploy"] == {"replicas": 2}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_ends_by_itself_or_has_a_health_check(name: str) -> None:
    service = SERVICES[name]
    if service.get("restart") == "no":
        assert name == "migration"
        return

    # The image of the service brings its own.
    assert "healthcheck" in service or name == "service"
    assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_locked_down(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert any(entry.startswith("/tmp") for entry in service["tmpfs"])
    # Ours have their user from the image.
    assert name in OURS or not service["user"].startswith(("0", "root"))


@pytest.mark.parametrize("name", SERVICES)
def test_services_wait_for_what_exists_and_can_say_that_it_is_healthy(name: str) -> None:
    for other, dependency in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        if dependency["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other] or other == "service"
        if dependency["condition"] == "service_completed_successfully":
            assert SERVICES[other]["restart"] == "no"


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_come_from_files_and_are_declared(name: str) -> None:
    service = SERVICES[name]
    mounted = set(service.get("secrets", []))

    for variable, value in _variables(service).items():
        if variable == "GF_SECURITY_ADMIN_PASSWORD__FILE":
            assert value == "/run/secrets/grafana_password"
        elif re.search(r"PASSWORD|SECRET|KEY|PEPPER|TOKEN", variable):
            assert variable.endswith("_FILE")
            assert value.removeprefix("/run/secrets/") in mounted
    assert mounted <= set(COMPOSE["secrets"])


def test_no_secret_is_written_into_the_file() -> None:
    assert all(
        list(source) == ["file"] and source["file"] == f"./secrets/{name}"
        for name, source in COMPOSE["secrets"].items()
    )
    assert "secrets/" in (REPOSITORY / ".gitignore").read_text("utf-8").splitlines()


def test_volumes_and_networks_that_are_used_are_declared() -> None:
    mounted = [v.split(":") for s in SERVICES.values() for v in s.get("volumes", [])]
    volumes = {source for source, *_ in mounted if not source.startswith("./")}
    networks = {network for s in SERVICES.values() for network in s["networks"]}

    assert volumes == set(COMPOSE["volumes"])
    assert networks == set(COMPOSE["networks"])
    for source, _, *mode in mounted:
        if source.startswith("./"):
            assert (REPOSITORY / source).exists()
            assert mode == ["ro"]


def test_only_the_proxy_and_the_board_are_reached_and_only_from_this_machine() -> None:
    published = {name: s["ports"] for name, s in SERVICES.items() if "ports" in s}

    assert published == {"proxy": ["127.0.0.1:8000:8080"], "grafana": ["127.0.0.1:3000:3000"]}
    assert COMPOSE["networks"]["internal"] == {"internal": True}
    outside = {name for name, s in SERVICES.items() if "public" in s["networks"]}
    assert outside == {"grafana", "proxy", "worker"}  # The worker calls the mail server.


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_one_that_the_service_reads(name: str) -> None:
    known = {variable.name for variable in variables()} | GUNICORN_VARIABLES
    known |= {f"{variable.name}_FILE" for variable in variables() if variable.secret}

    assert set(_variables(SERVICES[name])) <= known


def test_with_fresh_secrets_the_service_accepts_its_production_settings(tmp_path: Path) -> None:
    subprocess.run(
        [REPOSITORY / "scripts" / "make_secrets.sh", tmp_path], check=True, capture_output=True
    )
    environment = {
        name: value.replace("/run/secrets", str(tmp_path))
        for name, value in _variables(SERVICES["service"]).items()
    }

    settings = Settings.from_env(environment, instance_dir=tmp_path)

    assert settings.is_production
    assert not settings.embedded
    assert "@postgresql:5432/userapi" in settings.database_url
    assert "@redis:6379/0" in settings.redis_url
    assert settings.rabbitmq_url.startswith("amqp://userapi:")
    assert settings.jwt_algorithm == "ES256"
    build_key_ring(settings, SystemClock()).require_active()


@pytest.mark.parametrize("name", OURS)
def test_settings_next_to_the_compose_file_reach_every_container(name: str, tmp_path: Path) -> None:
    """Only three variables were passed on: a mail server that was set there never sent a mail."""
    subprocess.run(
        [REPOSITORY / "scripts" / "make_secrets.sh", tmp_path], check=True, capture_output=True
    )
    # As the guide has it: the example, with what the operator adds at its end.
    beside = tmp_path / ".env"
    example = (REPOSITORY / ".env.example").read_text("utf-8")
    beside.write_text(f"{example}\nSMTP_HOST=mail.example.com\nRATE_LIMIT_LOGIN=7/minute\n")
    in_file = {name: value or "" for name, value in dotenv_values(beside).items()}
    environment = in_file | {
        name: value.replace("/run/secrets", str(tmp_path))
        for name, value in _variables(SERVICES[name]).items()
    }

    settings = Settings.from_env(environment, instance_dir=tmp_path)

    assert SERVICES[name]["env_file"] == [{"path": ".env", "required": False}]
    assert settings.smtp_host == "mail.example.com"
    assert settings.rate_limit_login == "7/minute"
    assert settings.is_production
    assert settings.bind == "0.0.0.0:8000"
    assert "@postgresql:" in settings.database_url


def test_secrets_that_are_there_are_kept(tmp_path: Path) -> None:
    script = [REPOSITORY / "scripts" / "make_secrets.sh", tmp_path]
    subprocess.run(script, check=True, capture_output=True)
    before = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}

    subprocess.run(script, check=True, capture_output=True)

    assert {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()} == before
    # tests/deploy/test_compose_ha.py checks the others.
    assert set(before) > set(COMPOSE["secrets"])
    assert len(set(before.values())) == len(before)
