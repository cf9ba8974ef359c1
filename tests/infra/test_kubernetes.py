"""The manifests: valid for all versions of Kubernetes that are checked, complete, and locked down."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate.utils as kubernetes_validate
import pytest
import yaml

from raregrade import __version__
from tests.infra import policy
from tests.infra.manifests import (
    KUBERNETES,
    OVERLAYS,
    ROOT,
    Document,
    closure,
    documents_in,
    kustomizations,
    render,
    rendered,
)

VERSIONS = [version for version in kubernetes_validate.all_versions() if int(version.split(".")[1]) >= 29]
FILES = sorted(
    path
    for folder in ("base", "components", "overlays/dev/example-data")
    for path in (KUBERNETES / folder).rglob("*.yaml")
    if path.name != "kustomization.yaml"
)


@pytest.fixture(scope="module", autouse=True)
def _schemas_read_once() -> Iterator[None]:
    """kubernetes-validate reads megabytes of schemas anew for every document."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("schema_contents", "all_versions"):
            patch.setattr(kubernetes_validate, name, functools.cache(getattr(kubernetes_validate, name)))
        yield


def validate(document: Document, version: str) -> None:
    """Raises for a wrong type, a missing key, and, being strict, for a key that Kubernetes does not know."""
    kubernetes_validate.validate(document, version, strict=True)


def test_the_versions_begin_with_1_29_and_reach_the_newest_known() -> None:
    assert VERSIONS[0].startswith("1.29.")
    assert VERSIONS[-1] == kubernetes_validate.latest_version()
    assert len(VERSIONS) >= 9


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_kubectl_renders_is_valid(overlay: str, version: str) -> None:
    for document in rendered(overlay):
        validate(document, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_file_is_valid_by_itself(version: str) -> None:
    documents = [document for path in FILES for document in documents_in(path)]
    assert len(documents) > 25
    for document in documents:
        validate(document, version)


def test_a_misspelt_key_is_not_valid() -> None:
    (document,) = documents_in(KUBERNETES / "base/platform/mlflow/poddisruptionbudget.yaml")
    document["spec"]["maxUnavialable"] = document["spec"].pop("maxUnavailable")
    with pytest.raises(kubernetes_validate.ValidationError, match="maxUnavialable"):
        validate(document, VERSIONS[-1])


@pytest.mark.parametrize("path", kustomizations(), ids=lambda path: str(path.parent.relative_to(KUBERNETES)))
def test_a_kustomization_names_files_that_exist_and_patches_what_is_there(path: Path) -> None:
    folder, kustomization = path.parent, yaml.safe_load(path.read_text())
    known = {
        "apiVersion", "kind", "namespace", "labels", "resources", "components", "configMapGenerator", "patches",
        "images", "replicas",
    }  # fmt: skip
    assert set(kustomization) <= known
    names = [*kustomization.get("resources", []), *kustomization.get("components", [])]
    names += [name for generator in kustomization.get("configMapGenerator", []) for name in generator.get("files", [])]
    for name in names:
        assert (folder / name).exists(), name
    here = closure(folder)
    titles = {policy.title(document) for document in here}
    for patch in kustomization.get("patches", []):
        if "path" in patch:
            for document in documents_in(folder / patch["path"]):
                assert policy.title(document) in titles
        else:
            kind, name = patch["target"]["kind"], patch["target"].get("name")
            assert any(title == f"{kind}/{name}" or (name is None and title.startswith(f"{kind}/")) for title in titles)
            assert all(step["op"] in ("add", "replace") for step in yaml.safe_load(patch["patch"]))
    images = {
        container["image"].rpartition(":")[0]
        for _, pod in policy.pod_specs(here)
        for container in policy.containers(pod)
    }
    assert {image["name"] for image in kustomization.get("images", [])} <= images
    assert {f"Deployment/{entry['name']}" for entry in kustomization.get("replicas", [])} <= titles


def test_every_file_is_part_of_a_kustomization() -> None:
    used = set()
    for path in kustomizations():
        kustomization = yaml.safe_load(path.read_text())
        used |= {(path.parent / name).resolve() for name in kustomization.get("resources", [])}
        used |= {
            (path.parent / patch["path"]).resolve() for patch in kustomization.get("patches", []) if "path" in patch
        }
    there = {path for path in KUBERNETES.rglob("*.yaml") if path.name != "kustomization.yaml"}
    assert there - used == set()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_overlay_breaks_a_rule(overlay: str) -> None:
    documents = rendered(overlay)
    assert policy.workload_problems(documents) == []
    assert policy.clear_secrets(documents) == []
    assert policy.rights_problems(documents) == []


def test_no_file_breaks_a_rule() -> None:
    documents = [document for path in FILES for document in documents_in(path)]
    assert len(list(policy.pod_specs(documents))) == 7
    assert policy.workload_problems(documents) == []
    assert policy.clear_secrets([*documents, *(d for path in kustomizations() for d in closure(path.parent))]) == []
    assert policy.rights_problems(documents) == []


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_what_a_pod_refers_to_exists(environment: str) -> None:
    """Settings, volumes and accounts in its namespace; secrets, with the key, among those of create-secrets.sh."""
    from_outside = {("ConfigMap", "postgres-ca"), ("ConfigMap", "raregrade-params")}
    secrets = created_secrets(f"raregrade-{environment}")
    overlays = [overlay for overlay in OVERLAYS if overlay.startswith(f"overlays/{environment}/")]
    documents = [document for overlay in overlays for document in rendered(overlay)]
    names = {(d["metadata"].get("namespace"), d["kind"], d["metadata"]["name"]) for d in documents}
    for document in documents:
        for owner, pod in policy.pod_specs([document]):
            namespace = document["metadata"]["namespace"]
            there = {(kind, name) for where, kind, name in names if where == namespace} | from_outside
            settings, keys = references(pod)
            claims = {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
            assert ("ServiceAccount", pod["serviceAccountName"]) in there, owner
            assert {("ConfigMap", name) for name in settings} <= there, owner
            assert {("PersistentVolumeClaim", name) for name in claims} <= there, owner
            assert {(namespace, *key) for key in keys} <= secrets, owner


def created_secrets(namespace: str) -> set[tuple[str, str, str]]:
    """Namespace, name and key of all that ``create-secrets.sh`` prints."""
    script = KUBERNETES / "create-secrets.sh"
    text = subprocess.run(["sh", script, namespace], capture_output=True, text=True, check=True).stdout
    documents = [document for document in yaml.safe_load_all(text) if document]
    for document in documents:
        validate(document, VERSIONS[-1])
    return {
        (document["metadata"]["namespace"], document["metadata"]["name"], key)
        for document in documents
        for key in document["stringData"]
    }


def references(pod: Document) -> tuple[set[str], set[tuple[str, str]]]:
    """The ConfigMaps and the keys of secrets that a pod names."""
    settings = {volume["configMap"]["name"] for volume in pod.get("volumes", []) if "configMap" in volume}
    keys = set()
    for container in policy.containers(pod):
        settings |= {source["configMapRef"]["name"] for source in container.get("envFrom", [])}
        chosen = [item["valueFrom"]["secretKeyRef"] for item in container.get("env", []) if "valueFrom" in item]
        keys |= {(reference["name"], reference["key"]) for reference in chosen}
    return settings, keys


def test_the_secrets_that_are_made_are_random_and_used() -> None:
    script = KUBERNETES / "create-secrets.sh"
    first, second = (
        list(yaml.safe_load_all(subprocess.run(["sh", script, "team-a"], capture_output=True, check=True).stdout))
        for _ in range(2)
    )
    values = [value for document in first for value in document["stringData"].values()]
    others = {value for document in second for value in document["stringData"].values()}
    assert others & set(values) == {"admin", "serving", "pipelines", "optuna"}
    assert all(len(value) == 48 for value in set(values) - others)
    by_name = {
        (document["metadata"]["namespace"], document["metadata"]["name"]): document["stringData"] for document in first
    }
    assert by_name["raregrade", "raregrade-s3"] == by_name["team-a", "raregrade-s3"]
    assert (
        by_name["raregrade", "raregrade-postgres"]["optuna-password"]
        == by_name["team-a", "raregrade-optuna"]["password"]
    )


def test_the_keys_of_your_own_store_are_taken_over_unchanged() -> None:
    given = {"S3_ACCESS_KEY_ID": "me", "S3_SECRET_ACCESS_KEY": 'it\'s: a "key" #1 %s', "PATH": "/usr/bin:/bin"}
    script = KUBERNETES / "create-secrets.sh"
    text = subprocess.run(["sh", script, "team-a"], env=given, capture_output=True, text=True, check=True).stdout
    stores = [d["stringData"] for d in yaml.safe_load_all(text) if d["metadata"]["name"] == "raregrade-s3"]
    assert stores == [{"access-key-id": "me", "secret-access-key": given["S3_SECRET_ACCESS_KEY"]}] * 2


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_choose_something(overlay: str) -> None:
    """Of policies, services and budgets: a typo there is valid YAML that does nothing."""
    platform = rendered(overlay.rpartition("/")[0] + "/platform")
    labels = [
        document["spec"]["template"]["metadata"]["labels"]
        for document in (*rendered(overlay), *platform)
        if document["kind"] in ("Deployment", "StatefulSet")
    ]
    for document in rendered(overlay):
        if document["kind"] == "NetworkPolicy":
            assert chosen(document["spec"]["podSelector"], labels), policy.title(document)
            for rule in [*document["spec"].get("ingress", []), *document["spec"].get("egress", [])]:
                for peer in [*rule.get("from", []), *rule.get("to", [])]:
                    if "podSelector" in peer and "namespaceSelector" not in peer:
                        assert chosen(peer["podSelector"], [*labels, {"app.kubernetes.io/name": "serving"}])
        elif document["kind"] == "Service" and document["spec"].get("type") != "ExternalName":
            assert chosen({"matchLabels": document["spec"]["selector"]}, labels), policy.title(document)
        elif document["kind"] == "PodDisruptionBudget":
            assert chosen(document["spec"]["selector"], labels), policy.title(document)


def chosen(selector: Document, labels: list[dict[str, str]]) -> list[dict[str, str]]:
    """Those of ``labels`` that a label selector matches."""

    def matches(own: dict[str, str]) -> bool:
        exact = all(own.get(key) == value for key, value in selector.get("matchLabels", {}).items())
        return exact and all(own.get(rule["key"]) in rule["values"] for rule in selector.get("matchExpressions", []))

    return [own for own in labels if matches(own)]


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_nothing_passes_between_pods_that_no_policy_names(environment: str) -> None:
    policies = {
        d["metadata"]["name"]: d["spec"]
        for d in rendered(f"overlays/{environment}/platform")
        if d["kind"] == "NetworkPolicy"
    }
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, spec in policies.items():
        for direction in ("ingress", "egress"):
            for rule in spec.get(direction, []):
                assert rule.get("from" if direction == "ingress" else "to"), f"{name}: everybody"
                assert rule.get("ports"), f"{name}: every port"


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_the_mlflow_upgrade_job_is_valid_and_reaches_the_database_only(environment: str) -> None:
    documents = rendered(f"overlays/{environment}/platform")
    (server,) = (d for d in documents if policy.title(d) == "StatefulSet/mlflow")
    script = KUBERNETES / "mlflow_upgrade_job.py"
    made = subprocess.run(
        [sys.executable, script], input=json.dumps(server), capture_output=True, text=True, check=True
    )
    job = json.loads(made.stdout)
    for version in VERSIONS:
        validate(job, version)
    assert policy.workload_problems([job]) == []
    labels = [job["spec"]["template"]["metadata"]["labels"]]
    reached = {
        d["metadata"]["name"]
        for d in documents
        if d["kind"] == "NetworkPolicy" and chosen(d["spec"]["podSelector"], labels)
    }
    assert reached == {"default-deny", "allow-dns", "to-postgres"}
    services = [d["spec"]["selector"] for d in documents if d["kind"] == "Service" and "selector" in d["spec"]]
    assert services
    assert not any(chosen({"matchLabels": selector}, labels) for selector in services)


def test_our_own_image_is_the_one_that_the_pipelines_name() -> None:
    images = {
        container["image"]
        for overlay in ("overlays/dev/platform", "overlays/dev/serving")
        for _, pod in policy.pod_specs(rendered(overlay))
        for container in policy.containers(pod)
    }
    assert {image for image in images if "raregrade" in image} == {f"localhost/raregrade:{__version__}"}


def test_prod_uses_one_registry_and_runs_no_database() -> None:
    documents = [d for part in ("platform", "serving") for d in rendered(f"overlays/prod/{part}")]
    pods = list(policy.pod_specs(documents))
    assert {owner for owner, _ in pods} == {"StatefulSet/mlflow", "Deployment/optuna-dashboard", "Deployment/serving"}
    assert all(c["image"].startswith("registry.example.org/") for _, pod in pods for c in policy.containers(pod))
    settings = {d["metadata"]["name"].rpartition("-")[0]: d["data"] for d in documents if d["kind"] == "ConfigMap"}
    assert settings["postgres"]["PGSSLMODE"] == "verify-full"
    (address,) = (
        d["spec"]["externalName"] for d in documents if d["kind"] == "Service" and "externalName" in d["spec"]
    )
    assert settings["postgres"]["PGHOST"] == address


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_a_budget_never_blocks_the_draining_of_a_node(environment: str) -> None:
    documents = [d for part in ("platform", "serving") for d in rendered(f"overlays/{environment}/{part}")]
    budgets = [d["spec"] for d in documents if d["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == 2
    assert all(budget["maxUnavailable"] == 1 and "minAvailable" not in budget for budget in budgets)


def test_only_the_overlay_for_several_nodes_may_start_train_jobs() -> None:
    def resources(overlay: str) -> set[str]:
        roles = [d for d in rendered(overlay) if d["kind"] == "Role"]
        return {resource for role in roles for rule in role["rules"] for resource in rule["resources"]}

    assert "trainjobs" not in resources("overlays/dev/runs") | resources("overlays/prod/runs")
    assert "trainjobs" in resources("overlays/prod/runs-with-train-jobs")


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_the_environments_of_the_pipelines_name_what_the_manifests_make(environment: str) -> None:
    """Account, volumes and secrets of ``configs/environments``: a typo there shows on the cluster only."""
    path = ROOT / "configs" / "environments" / f"{environment}.yaml"
    settings: dict[str, Any] = yaml.safe_load(path.read_text())
    documents = rendered(f"overlays/{environment}/runs")
    names = {(d["kind"], d["metadata"]["name"]) for d in documents}
    assert {d["metadata"]["namespace"] for d in documents} == {settings["namespace"]}
    assert ("ServiceAccount", settings["service_account"]) in names
    assert {("PersistentVolumeClaim", volume["claim"]) for volume in settings["volumes"]} <= names
    services = {
        f"{d['metadata']['name']}.{d['metadata']['namespace']}"
        for d in rendered(f"overlays/{environment}/platform")
        if d["kind"] == "Service"
    }
    assert {settings["env"]["PGHOST"], settings["tracking_uri"].split("/")[2].split(":")[0]} <= services
    secrets = created_secrets(settings["namespace"])
    for secret in settings["secrets"]:
        for key in secret["env"]:
            assert (settings["namespace"], secret["name"], key) in secrets


def test_a_dry_run_of_the_secrets_is_what_kubectl_reads(tmp_path: Path) -> None:
    """kubectl itself parses what the script prints; a kustomization is the one way that needs no cluster."""
    text = subprocess.run(
        ["sh", KUBERNETES / "create-secrets.sh", "team-a"], capture_output=True, text=True, check=True
    ).stdout
    (tmp_path / "secrets.yaml").write_text(text)
    (tmp_path / "kustomization.yaml").write_text(json.dumps({"resources": ["secrets.yaml"]}))
    assert len(render(tmp_path)) == 7


def test_the_dockerfiles_break_no_rule() -> None:
    folder = ROOT / "infra" / "docker"
    files = sorted(path for path in folder.rglob("Dockerfile*") if path.is_file())
    assert files, "infra/docker holds no Dockerfile"
    for path in files:
        assert policy.dockerfile_problems(path.read_text()) == [], path.name
