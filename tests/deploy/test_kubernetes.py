"""The manifests against the API's schemas, Kubeflow's models, wiresum's own options. No cluster."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from wiresum.cli.main import ROOT as COMMANDS
from wiresum.common.command_line import Group
from wiresum.common.command_line.build import build

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
INSTALL = "pip install 'wiresum[manifests]'"
yaml = pytest.importorskip("yaml", reason=f"PyYAML is not installed: {INSTALL}")


def documents() -> list[dict[str, Any]]:
    return [
        d for path in sorted(FOLDER.glob("*.yaml")) for d in yaml.safe_load_all(path.read_text())
    ]


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [d for d in documents() if d["kind"] in kinds]


def containers() -> list[dict[str, Any]]:
    pods = [d["spec"]["template"]["spec"] for d in of_kind("StatefulSet")]
    return [c for pod in pods for c in pod["containers"]]


def test_kubernetes_accepts_every_field() -> None:
    validate = pytest.importorskip(
        "kubernetes_validate", reason=f"kubernetes-validate is not installed: {INSTALL}"
    )
    checked = [d for d in documents() if d["kind"] != "TrainJob"]
    assert len(checked) >= 7
    for document in checked:
        validate.validate(document, "1.37", strict=True)
    wrong = of_kind("StatefulSet")[0]
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Always"
    with pytest.raises(validate.ValidationError):
        validate.validate(wrong, "1.37", strict=True)


def test_kubeflow_knows_every_field_of_the_trainjob() -> None:
    models = pytest.importorskip(
        "kubeflow_trainer_api.models",
        reason=f"kubeflow-trainer-api is not installed: {INSTALL}",
    )
    (job,) = of_kind("TrainJob")
    # What the models do not know they drop.
    assert models.TrainerV1alpha1TrainJob.from_dict(job).to_dict() == job


def lines() -> list[list[str]]:
    """Every ``wiresum`` command in the manifests, as words, without the workers' own command."""
    (job,) = of_kind("TrainJob")
    found = []
    for command in [c["command"] for c in containers() if "command" in c] + [
        job["spec"]["trainer"]["command"]
    ]:
        if command[0] == "wiresum":
            found.append(command[1:])
        for text in command if command[:2] == ["sh", "-c"] else []:
            for part in re.findall(r"wiresum ((?:[^;&]|&&)*)", text):
                found.append(shlex.split(part.partition(" -- ")[0]))
    return found


def test_every_command_and_option_is_wiresums_own() -> None:
    seen = []
    for words in lines():
        entry, path = COMMANDS, list(words)
        while isinstance(entry, Group):
            name = path.pop(0)
            entry = entry.commands[name]
            seen.append(name)
        parameters = build(seen[-1], entry).params
        known = {name for each in parameters for name in (*each.opts, *each.secondary_opts)}
        for word in path:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, word
    assert seen == ["controller", "serve", "switch", "serve", "switch", "add", "run"]


def test_names_that_must_fit_together_do() -> None:
    readme = (FOLDER / "README.md").read_text()
    text = "".join(path.read_text() for path in FOLDER.glob("*.yaml"))
    named = set(
        re.findall(r"(?:secretName|secretKeyRef: \{name|configMap: \{name): ([\w-]+)", text)
    )
    assert named
    assert {name for name in named if f"`{name}`" not in readme and name not in readme} == set()
    services = {d["metadata"]["name"]: d for d in of_kind("Service")}
    for owner in of_kind("StatefulSet"):
        service = services[owner["spec"]["serviceName"]]
        assert service["spec"]["selector"] == owner["spec"]["selector"]["matchLabels"]
        assert service["spec"]["selector"] == owner["spec"]["template"]["metadata"]["labels"]
        # Every volume that is mounted is there.
        pod = owner["spec"]["template"]["spec"]
        volumes = {v["name"] for v in pod.get("volumes", [])}
        volumes |= {v["metadata"]["name"] for v in owner["spec"].get("volumeClaimTemplates", [])}
        for container in pod["containers"]:
            assert {m["name"] for m in container.get("volumeMounts", [])} <= volumes
    hosts = re.findall(r"([\w$-]+)\.(wiresum-\w+)\.wiresum\.svc:(\d+)", text)
    assert hosts
    for _, service, port in hosts:
        assert int(port) in [p["port"] for p in services[service]["spec"]["ports"]]
