"""The Kubernetes manifests: valid, locked down, and in step with the service."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from userapi.settings import Settings, variables

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "deploy" / "kubernetes"
GUNICORN_VARIABLES = {
    "BIND",
    "DRAIN_SECONDS",
    "GUNICORN_THREADS",
    "KEEPALIVE_SECONDS",
    "WEB_CONCURRENCY",
}
SECONDS_FOR_REQUESTS_UNDER_WAY = 25


def _resources() -> Iterator[dict[str, Any]]:
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text("utf-8"))["resources"]
    files = [name for name in listed if name != "../nginx"]  # A ConfigMap made of two files.
    assert {f"{path.name}" for path in FOLDER.glob("*.yaml")} == {*files, "kustomization.yaml"}
    for name in files:
        yield from yaml.safe_load_all((FOLDER / name).read_text("utf-8"))


RESOURCES = list(_resources())
NAMES = [f"{resource['kind']}/{resource['metadata']['name']}" for resource in RESOURCES]
PODS = {
    name: resource["spec"]["template"]
    for name, resource in zip(NAMES, RESOURCES, strict=True)
    if resource["kind"] in ("Deployment", "Job")
}


def one(name: str) -> dict[str, Any]:
    return RESOURCES[NAMES.index(name)]


@pytest.mark.parametrize("version", ["1.29", "1.33"])
@pytest.mark.parametrize("resource", RESOURCES, ids=NAMES)
def test_a_cluster_would_take_it(resource: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("fault", ["replica", "ports"])
def test_a_word_that_is_none_is_refused(fault: str) -> None:
    deployment = one("Deployment/userapi-worker")
    broken = {**deployment, "spec": {**deployment["spec"], fault: 2}}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.33", strict=True)


@pytest.mark.parametrize("name", PODS)
def test_every_pod_is_locked_down(name: str) -> None:
    spec = PODS[name]["spec"]
    mounts: set[str] = set()

    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001  # That of the image.
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        if container["image"] == "userapi":
            mounts |= {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"/etc/userapi/signing-key", "/tmp", "/var/lib/userapi"}


@pytest.mark.parametrize("name", [name for name in PODS if name.startswith("Deployment/")])
def test_what_runs_for_long_is_probed_and_ended_gently(name: str) -> None:
    spec = PODS[name]["spec"]
    drain = int(one("ConfigMap/userapi")["data"]["DRAIN_SECONDS"])

    assert "startupProbe" in spec["containers"][0]
    assert all("livenessProbe" in container for container in spec["containers"])
    assert spec["terminationGracePeriodSeconds"] > drain + SECONDS_FOR_REQUESTS_UNDER_WAY


def service_and_nginx() -> tuple[dict[str, Any], dict[str, Any]]:
    service, nginx = PODS["Deployment/userapi"]["spec"]["containers"]
    return service, nginx


def test_no_call_is_sent_to_a_pod_that_is_not_ready() -> None:
    _, nginx = service_and_nginx()
    drain = int(one("ConfigMap/userapi")["data"]["DRAIN_SECONDS"])
    probe = nginx["readinessProbe"]
    _, stops_listening_after = nginx["lifecycle"]["preStop"]["exec"]["command"]

    assert probe["httpGet"] == {"path": "/api/v1/health/ready", "port": "http"}
    assert probe["periodSeconds"] * probe["failureThreshold"] < int(stops_listening_after)
    # Or connections to a service that listens no longer would be refused.
    assert int(stops_listening_after) < drain


def test_the_service_is_reached_through_nginx_in_its_pod_alone() -> None:
    service, nginx = service_and_nginx()
    ports = {port["name"]: port["containerPort"] for port in nginx["ports"]}
    pod = PODS["Deployment/userapi"]
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    (configuration,) = (m for m in nginx["volumeMounts"] if m["mountPath"] == "/etc/nginx/conf.d")
    made = yaml.safe_load((FOLDER.parent / "nginx" / "kustomization.yaml").read_text("utf-8"))
    (generated,) = made["configMapGenerator"]

    assert {"name": "BIND", "value": "127.0.0.1:8000"} in service["env"]
    assert "ports" not in service
    assert ports == {"http": 8080, "metrics": 9101}
    assert one("Service/userapi")["spec"]["ports"][0]["targetPort"] == "http"
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])
    allowed = one("NetworkPolicy/userapi")["spec"]["ingress"]
    assert [rule["ports"][0]["port"] for rule in allowed] == ["http", "metrics"]
    assert volumes[configuration["name"]]["configMap"] == {"name": generated["name"]}
    assert generated["files"] == ["default.conf", "kubernetes.conf"]
    assert "../nginx" in yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    # The addresses of nginx and of an ingress are the last of X-Forwarded-For.
    assert one("ConfigMap/userapi")["data"]["TRUSTED_PROXY_COUNT"] == "2"


def test_selectors_find_the_pods_that_they_are_for() -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in PODS.items()}

    for name in ("Deployment/userapi", "Deployment/userapi-worker"):
        assert one(name)["spec"]["selector"]["matchLabels"] == labels[name]
    assert one("Service/userapi")["spec"]["selector"] == labels["Deployment/userapi"]
    budget = one("PodDisruptionBudget/userapi")["spec"]["selector"]["matchLabels"]
    assert budget == labels["Deployment/userapi"]
    policy = one("NetworkPolicy/userapi")["spec"]["podSelector"]["matchLabels"]
    assert policy == labels["Deployment/userapi"]
    target = one("HorizontalPodAutoscaler/userapi")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "userapi")
    assert "replicas" not in one("Deployment/userapi")["spec"]


def test_the_service_takes_its_settings(tmp_path: Path) -> None:
    given = one("ConfigMap/userapi")["data"]
    known = {variable.name for variable in variables()} | GUNICORN_VARIABLES
    # As docs/operating.md makes them.
    secrets = {
        "DATABASE_URL": "postgresql://userapi:dZ4mQ8sV1xW7@postgresql:5432/userapi",
        "REDIS_URL": "redis://:kP6nT3rB9yH2@redis:6379/0",
        "RABBITMQ_URL": "amqp://userapi:jF5cL8wX2gM7@rabbitmq:5672/",
        "SECRET_KEY": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "PASSWORD_PEPPER": "fd61a03af4f77d870fc21e05e7e80678095c92d808cfb3b5c279ee04c74aca13",
        "ENCRYPTION_KEY": "6b51d431df5d7f141cbececcf79edf3dd861c3b4069f0b11661a3eefacbba918",
        "METRICS_TOKEN": "a4e624d686e03ed2767c0abd85c14426b0b1157d2ce81d27bb4fe4f6f01d688a",
    }
    guide = (REPOSITORY / "docs" / "operating.md").read_text("utf-8")

    key = tmp_path / "key.pem"
    key.write_text("mounted from the secret userapi-signing-key")

    settings = Settings.from_env(
        {**given, **secrets, "JWT_PRIVATE_KEY_FILE": str(key)}, instance_dir=tmp_path
    )

    assert set(given) <= known
    assert settings.is_production
    assert settings.jwt_algorithm == "ES256"
    assert all(f"--from-literal={name}=" in guide for name in secrets)


@pytest.mark.parametrize("name", PODS)
def test_every_pod_reads_the_shared_signing_key(name: str) -> None:
    path = Path(one("ConfigMap/userapi")["data"]["JWT_PRIVATE_KEY_FILE"])
    spec = PODS[name]["spec"]
    (volume,) = (v for v in spec["volumes"] if v["name"] == "signing-key")
    ours = [c for c in spec["containers"] if c["image"] == "userapi"]
    mounts = {mount["name"]: mount for c in ours for mount in c["volumeMounts"]}
    guide = (REPOSITORY / "docs" / "operating.md").read_text("utf-8")

    assert volume["secret"] == {"secretName": "userapi-signing-key", "defaultMode": 0o440}
    assert mounts["signing-key"]["mountPath"] == str(path.parent)
    assert mounts["signing-key"]["readOnly"] is True
    assert f"generic userapi-signing-key --from-file={path.name}" in guide
