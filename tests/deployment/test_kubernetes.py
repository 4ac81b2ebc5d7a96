"""deploy/kubernetes: valid by Kubernetes' own schemas, and careful."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import typer.main
import yaml

from pipeline.cli import app
from pipeline.settings import Settings

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
DOCUMENTS: list[dict[str, Any]] = [
    document for file in sorted(FOLDER.glob("*.yaml")) for document in yaml.safe_load_all(file.read_text())
]
DEPLOYMENTS = [each for each in DOCUMENTS if each["kind"] == "Deployment"]
WORKLOADS = [*DEPLOYMENTS, *(each for each in DOCUMENTS if each["kind"] == "Job")]


def name(document: dict[str, Any]) -> str:
    return f"{document['kind']}-{document['metadata']['name']}"


def container(workload: dict[str, Any]) -> dict[str, Any]:
    (only,) = workload["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_each_manifest_is_valid(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=name)
def test_each_service_is_probed_disrupted_one_at_a_time_and_ends_in_peace(deployment: dict[str, Any]) -> None:
    found = container(deployment)
    assert found["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    assert found["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "metrics"}
    assert found["startupProbe"]["httpGet"]["path"] == "/livez"
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 30
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    budgets = [each["spec"] for each in DOCUMENTS if each["kind"] == "PodDisruptionBudget"]
    (budget,) = [each for each in budgets if each["selector"]["matchLabels"].items() <= labels.items()]
    assert budget["maxUnavailable"] == 1 < deployment["spec"]["replicas"]


@pytest.mark.parametrize("workload", WORKLOADS, ids=name)
def test_no_pod_may_more_than_it_must(workload: dict[str, Any]) -> None:
    pod, found = workload["spec"]["template"]["spec"], container(workload)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert found["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert re.fullmatch(r"tenant-billing:\d+\.\d+\.\d+", found["image"])
    assert found["resources"]["limits"]["memory"]


@pytest.mark.parametrize("workload", WORKLOADS, ids=name)
def test_secrets_are_referred_to_and_mounted_as_files(workload: dict[str, Any]) -> None:
    volumes = {each["name"]: each for each in workload["spec"]["template"]["spec"]["volumes"]}
    assert volumes["secrets"]["secret"]["secretName"].startswith("tenant-billing-")
    for variable in container(workload).get("env", ()):
        assert not re.search("PASSWORD|API_KEY|SECRET", variable["name"]) or variable["name"].endswith(
            "_FILE"
        )
        assert not re.search(r"//[^/@]*:[^/@]*@", variable["value"]), "a password in an address"
    assert not [each for each in DOCUMENTS if each["kind"] == "Secret"]


def test_every_setting_is_one_and_every_command_exists() -> None:
    known = {f"TENANT_BILLING_{field}".upper() for field in Settings.model_fields}
    for field in Settings.model_fields.values():
        known |= set(getattr(field.validation_alias, "choices", ()))
    (settings,) = [each["data"] for each in DOCUMENTS if name(each) == "ConfigMap-tenant-billing"]
    named = set(settings) | {
        each["name"] for workload in WORKLOADS for each in container(workload).get("env", ())
    }
    assert named <= known
    for workload in WORKLOADS:
        command: Any = typer.main.get_command(app)
        for word in container(workload)["args"]:
            command = command.commands[word]


def test_only_prometheus_may_knock() -> None:
    (policy,) = [each["spec"] for each in DOCUMENTS if each["kind"] == "NetworkPolicy"]
    assert policy["policyTypes"] == ["Ingress"]
    (rule,) = policy["ingress"]
    (port,) = {container(each)["ports"][0]["containerPort"] for each in DEPLOYMENTS}
    assert [each["port"] for each in rule["ports"]] == [port]
