"""Builds a folder of Kubernetes manifests as kustomize does, as far as `deploy/` uses it.

Not every machine has kubectl. `tests/deploy/kustomize_example/` uses each feature that this module
builds, with the result of kubectl. Where kubectl is installed, tests compare both.
"""

from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

Resource = dict[str, Any]
KNOWN = {
    "apiVersion",
    "configMapGenerator",
    "images",
    "kind",
    "namespace",
    "patches",
    "replacements",
    "resources",
}


def built(folder: Path) -> list[Resource]:
    """Return the resources of a folder with a `kustomization.yaml`, generated ones excepted."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    unknown = set(kustomization) - KNOWN
    assert not unknown, f"{folder}: kustomize.py does not build {unknown}"
    resources = [one for name in kustomization.get("resources", ()) for one in _read(folder / name)]
    files = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    unlisted = files - set(kustomization.get("resources", ()))
    assert not unlisted, f"{folder}: not listed in kustomization.yaml: {unlisted}"
    for patch in kustomization.get("patches", ()):
        resources = _patched(resources, patch)
    for resource in resources:
        if namespace := kustomization.get("namespace"):
            resource["metadata"]["namespace"] = namespace
        for image in kustomization.get("images", ()):
            _set_image(resource, image)
    for replacement in kustomization.get("replacements", ()):
        _name_jobs_by_tag(resources, replacement)
    return resources


def _read(path: Path) -> list[Resource]:
    if path.is_dir():
        return built(path)
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def _patched(resources: list[Resource], patch: dict[str, Any]) -> list[Resource]:
    target = (patch["target"]["kind"], patch["target"]["name"])
    change = yaml.safe_load(patch["patch"])
    found = [r for r in resources if (r["kind"], r["metadata"]["name"]) == target]
    assert len(found) == 1, f"a patch has no target: {target}"
    if change.get("$patch") == "delete":
        return [resource for resource in resources if resource is not found[0]]
    return [_merged(r, change) if r is found[0] else r for r in resources]


def _merged(present: Any, change: Any) -> Any:
    if not (isinstance(present, dict) and isinstance(change, dict)):
        # kustomize merges lists by keys: patches in `deploy/` contain none.
        assert not isinstance(change, list), f"a patch with a list: {change}"
        return change
    merged = deepcopy(present)
    for key, value in change.items():
        merged[key] = _merged(present.get(key), value)
    return merged


def _containers(resource: Resource) -> list[dict[str, Any]]:
    template = resource.get("spec", {}).get("template", {})
    containers: list[dict[str, Any]] = template.get("spec", {}).get("containers", [])
    return containers


def _set_image(resource: Resource, image: dict[str, str]) -> None:
    for container in _containers(resource):
        if container["image"] == image["name"]:
            container["image"] = f"{image['newName']}:{image['newTag']}"


def _name_jobs_by_tag(resources: list[Resource], replacement: dict[str, Any]) -> None:
    """Put the tag of a job's image in the place of the last part of its name."""
    assert replacement["source"]["kind"] == "Job"
    assert replacement["source"]["options"] == {"delimiter": ":", "index": 1}
    (target,) = replacement["targets"]
    assert target["select"] == {"kind": "Job"}
    assert target["fieldPaths"] == ["metadata.name"]
    delimiter, index = target["options"]["delimiter"], target["options"]["index"]
    for resource in resources:
        if resource["kind"] == "Job":
            parts = resource["metadata"]["name"].split(delimiter)
            parts[index] = _containers(resource)[0]["image"].split(":")[1]
            resource["metadata"]["name"] = delimiter.join(parts)
