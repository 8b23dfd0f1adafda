"""The Kubernetes manifests: valid, locked down, and in step with the service."""

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.support import kustomize
from tests.support.programs import KUBECTL
from userapi.settings import Settings, variables

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "deploy" / "kubernetes"
EXAMPLE = Path(__file__).parent / "kustomize_example"
OVERLAYS = ("single", "ha")
GUNICORN_VARIABLES = {
    "BIND",
    "DRAIN_SECONDS",
    "GUNICORN_THREADS",
    "KEEPALIVE_SECONDS",
    "WEB_CONCURRENCY",
}
SECONDS_FOR_REQUESTS_UNDER_WAY = 25


BASE = kustomize.built(FOLDER / "base")
RESOURCES = list(BASE)
NAMES = [f"{resource['kind']}/{resource['metadata']['name']}" for resource in RESOURCES]
PODS = {
    name: resource["spec"]["template"]
    for name, resource in zip(NAMES, RESOURCES, strict=True)
    if resource["kind"] in ("Deployment", "Job")
}


def one(name: str) -> dict[str, Any]:
    return RESOURCES[NAMES.index(name)]


def of(overlay: str) -> dict[str, dict[str, Any]]:
    """Return the resources of an overlay by kind and name."""
    built = kustomize.built(FOLDER / "overlays" / overlay)
    return {f"{resource['kind']}/{resource['metadata']['name']}": resource for resource in built}


@pytest.mark.parametrize("version", ["1.29", "1.33"])
@pytest.mark.parametrize("resource", RESOURCES, ids=NAMES)
def test_a_cluster_would_take_it(resource: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("version", ["1.29", "1.33"])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_cluster_would_accept_each_overlay(overlay: str, version: str) -> None:
    for resource in of(overlay).values():
        kubernetes_validate.validate(resource, version, strict=True)


def test_the_builder_of_these_tests_does_what_kubectl_has_done() -> None:
    recorded = (EXAMPLE / "rendered.yaml").read_text("utf-8")

    assert by_name(kustomize.built(EXAMPLE / "overlay")) == by_name(yaml.safe_load_all(recorded))


def test_the_example_of_the_builder_uses_all_that_it_builds() -> None:
    used: set[str] = set()
    for folder in ("base", "overlay"):
        file = EXAMPLE / folder / "kustomization.yaml"
        used |= set(yaml.safe_load(file.read_text("utf-8")))

    # The tests of nginx read the files of which a configuration is generated.
    assert used | {"configMapGenerator"} == kustomize.KNOWN


def by_name(resources: Iterable[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["kind"], one["metadata"]["name"]): one for one in resources}


@pytest.mark.skipif(KUBECTL.find() is None, reason="kubectl is not installed")
def test_kubectl_still_builds_the_example_like_this() -> None:
    command = [str(KUBECTL.require()), "kustomize", str(EXAMPLE / "overlay")]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert rendered == (EXAMPLE / "rendered.yaml").read_text("utf-8")


@pytest.mark.skipif(KUBECTL.find() is None, reason="kubectl is not installed")
@pytest.mark.parametrize(
    "folder",
    ["overlays/single", "overlays/ha", "examples/redis-sentinel", "examples/redis-cluster"],
)
def test_kustomize_builds_the_same_resources(folder: str) -> None:
    command = [str(KUBECTL.require()), "kustomize", str(FOLDER / folder)]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # The configuration of nginx has a name with a hash of its content.
    theirs = by_name(
        resource
        for resource in yaml.safe_load_all(rendered)
        if not resource["metadata"]["name"].startswith("userapi-nginx-")
    )
    ours = by_name(kustomize.built(FOLDER / folder))

    assert set(theirs) == set(ours)
    for key, resource in theirs.items():
        if key != ("Deployment", "userapi"):  # It names the configuration of nginx.
            assert resource == ours[key]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_name_of_the_migration_ends_in_the_tag_of_the_image(overlay: str) -> None:
    """A job cannot be changed: with a fixed name the next version could not be applied."""
    (name, job), *others = ((n, r) for n, r in of(overlay).items() if r["kind"] == "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]

    assert others == []
    assert name == "Job/userapi-migration-" + container["image"].rpartition(":")[2]
    annotations = job["metadata"]["annotations"]
    assert annotations["argocd.argoproj.io/hook"] == "Sync"
    assert "pre-upgrade" in annotations["helm.sh/hook"]
    configuration = of(overlay)["ConfigMap/userapi"]["metadata"]["annotations"]
    wave = "argocd.argoproj.io/sync-wave"
    assert int(configuration[wave]) < int(annotations[wave]) < 0


def test_the_overlay_for_one_node_blocks_no_drain() -> None:
    single = of("single")

    assert [name for name in single if name.startswith("PodDisruptionBudget/")] == []
    assert single["Deployment/userapi-worker"]["spec"]["replicas"] == 1
    assert single["HorizontalPodAutoscaler/userapi"]["spec"]["minReplicas"] == 1


def test_the_overlay_for_three_zones_survives_the_loss_of_one() -> None:
    ha = of("ha")
    scaling = ha["HorizontalPodAutoscaler/userapi"]["spec"]

    assert scaling["minReplicas"] == 3
    assert scaling["maxReplicas"] > scaling["minReplicas"]
    assert ha["PodDisruptionBudget/userapi"]["spec"]["minAvailable"] == 2
    assert ha["PodDisruptionBudget/userapi-worker"]["spec"]["minAvailable"] == 1
    for name in ("Deployment/userapi", "Deployment/userapi-worker"):
        template = ha[name]["spec"]["template"]
        affinity = template["spec"]["affinity"]["podAntiAffinity"]
        (rule,) = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
        term = rule["podAffinityTerm"]
        assert term["topologyKey"] == "topology.kubernetes.io/zone"
        assert term["labelSelector"]["matchLabels"] == template["metadata"]["labels"]


# Every form of URL that reaches a server, with the port that it names or means.
SERVERS = {
    "DATABASE_URL=postgresql://u@h/db": 5432,
    "DATABASE_URL=postgresql://u@pgbouncer:6432/db": 6432,
    "DATABASE_URL=postgresql://u@h1:5432,h2:5432/db": 5432,
    "REDIS_URL=redis://h:6379/0": 6379,
    "REDIS_URL=rediss://h:6379/0": 6379,
    "REDIS_URL=redis+sentinel://s1:26379,s2:26379/mymaster": 26379,
    "REDIS_URL=rediss+sentinel://s1:26379/mymaster": 26379,
    "REDIS_URL=redis+cluster://n1:6379,n2:6379": 6379,
    "RABBITMQ_URL=amqp://h1:5672,h2:5672/": 5672,
    "RABBITMQ_URL=amqps://h:5671/": 5671,
    "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4317": 4317,
    "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318": 4318,
}


@pytest.mark.parametrize("policy", ["userapi", "userapi-worker"])
@pytest.mark.parametrize("url", SERVERS)
def test_the_network_policy_lets_every_form_of_url_through(url: str, policy: str) -> None:
    """Sentinel, PgBouncer and amqps were shut out although the settings or guides name them."""
    rules = one(f"NetworkPolicy/{policy}")["spec"]["egress"]
    allowed = {port["port"] for rule in rules for port in rule["ports"]}

    assert SERVERS[url] in allowed


def example(name: str) -> dict[str, Any]:
    resource: dict[str, Any] = yaml.safe_load((FOLDER / "examples" / name).read_text("utf-8"))
    return resource


def test_the_examples_replicate_what_is_acknowledged() -> None:
    postgresql = example("cloudnative-pg.yaml")["spec"]
    rabbitmq = example("rabbitmq-cluster.yaml")["spec"]
    redis = example("redis-sentinel/redis.yaml")["spec"]
    sentinel = example("redis-sentinel/sentinel.yaml")["spec"]
    options = example("redis-sentinel/configuration.yaml")["data"]["redis-additional.conf"]

    assert postgresql["instances"] == 3
    assert postgresql["postgresql"]["synchronous"] == {
        "method": "any",
        "number": 1,
        "dataDurability": "required",
    }
    assert rabbitmq["replicas"] == 3
    additional = rabbitmq["rabbitmq"]["additionalConfig"]
    assert "cluster_partition_handling = pause_minority" in additional
    # Or a promoted master would have no replica and refuse writes.
    assert redis["clusterSize"] == 3
    assert "min-replicas-to-write 1" in options
    assert "maxmemory-policy noeviction" in options
    assert sentinel["clusterSize"] == 3
    assert int(sentinel["redisSentinelConfig"]["quorum"]) == 2
    assert sentinel["redisSentinelConfig"]["masterGroupName"] == "mymaster"


def test_the_example_of_a_redis_cluster_keeps_its_shards_independent() -> None:
    cluster = example("redis-cluster/redis.yaml")["spec"]
    options = example("redis-cluster/configuration.yaml")["data"]["redis-additional.conf"]
    guide = (REPOSITORY / "docs" / "operating.md").read_text("utf-8")
    section = guide.partition("### Redis Cluster")[2].partition("### ")[0]

    leaders, followers = cluster["redisLeader"], cluster["redisFollower"]
    assert leaders["replicas"] == cluster["clusterSize"] == 3
    # Or a promoted master would have no replica and refuse writes.
    assert followers["replicas"] == 2 * leaders["replicas"]
    assert leaders["redisConfig"] == followers["redisConfig"]
    for option in ("cluster-require-full-coverage no", "cluster-node-timeout 3000"):
        assert option in options and option in section
    for option in ("min-replicas-to-write 1", "maxmemory-policy noeviction", 'save ""'):
        assert option in options and option in section


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

    assert probe["httpGet"] == {"path": "/api/v1/health/serving", "port": "http"}
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
    listed = yaml.safe_load((FOLDER / "base" / "kustomization.yaml").read_text("utf-8"))
    assert "../../nginx" in listed["resources"]
    # The addresses of nginx and of an ingress are the last of X-Forwarded-For.
    assert one("ConfigMap/userapi")["data"]["TRUSTED_PROXY_COUNT"] == "2"


def test_selectors_find_the_pods_that_they_are_for() -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in PODS.items()}

    for name in ("Deployment/userapi", "Deployment/userapi-worker"):
        assert one(name)["spec"]["selector"]["matchLabels"] == labels[name]
    assert one("Service/userapi")["spec"]["selector"] == labels["Deployment/userapi"]
    for name in ("userapi", "userapi-worker"):
        budget = one(f"PodDisruptionBudget/{name}")["spec"]["selector"]["matchLabels"]
        assert budget == labels[f"Deployment/{name}"]
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
