"""What deploy/ starts: valid manifests, commands that exist, and addresses of services that are there."""

import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from kits_ml import cli

ROOT = Path(__file__).parents[1]
MANIFEST = [one for one in yaml.safe_load_all((ROOT / "deploy/kubernetes.yaml").read_text()) if one]
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
README = (ROOT / "deploy/README.md").read_text()
#: Of README.md: what holds the volume of the cases while they are copied.
FILL = list(yaml.safe_load_all(re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1]))
#: The oldest and the newest Kubernetes whose schemas are at hand.
VERSIONS = ("1.25", kubernetes_validate.latest_version())


def _of(kind: str) -> dict[str, dict]:
    return {one["metadata"]["name"]: one["spec"] for one in MANIFEST if one["kind"] == kind}


def _pods() -> dict[str, dict]:
    """The pods' specifications by name of what makes them."""
    return {
        name: spec["template"]["spec"]
        for kind in ("StatefulSet", "Deployment", "Job")
        for name, spec in _of(kind).items()
    }


def _containers() -> dict[str, list[str]]:
    """Command and arguments of each container of both files that runs this package's image."""
    found = {}
    for name, pod in _pods().items():
        for one in pod["containers"]:
            if one["image"].startswith("kits_ml"):
                found[f"kubernetes {name}"] = [*one.get("command", ["kits-ml"]), *one["args"]]
    for name, one in COMPOSE["services"].items():
        if one["image"].startswith("kits_ml"):
            found[f"compose {name}"] = [*one.get("entrypoint", ["kits-ml"]), *one["command"]]
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifest_is_valid(version):
    for one in (*MANIFEST, *FILL):
        kubernetes_validate.validate(one, version, strict=True)


def test_a_mistake_would_be_found():
    job = next(one for one in MANIFEST if one["kind"] == "Job")
    with pytest.raises(kubernetes_validate.ValidationError, match="paralellism"):
        kubernetes_validate.validate({**job, "spec": {**job["spec"], "paralellism": 3}}, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("name", [name for name, words in _containers().items() if words[0] == "kits-ml"])
def test_the_commands_and_their_options_exist(name):
    arguments = _containers()[name][1:]
    said = CliRunner().invoke(cli.main, [*arguments, "--help"])  # what comes before --help is parsed
    assert said.exit_code == 0, said.output
    assert CliRunner().invoke(cli.main, [*arguments, "--nosuch=1", "--help"]).exit_code != 0


def test_the_tracking_servers_options_exist():
    program, *arguments = _containers()["kubernetes mlflow"]
    command = [sys.executable, "-W", "ignore", "-m", program, *arguments, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_volumes_are_there():
    claims = {one["metadata"]["name"] for one in MANIFEST if one["kind"] == "PersistentVolumeClaim"}
    maps = {one["metadata"]["name"] for one in MANIFEST if one["kind"] == "ConfigMap"}
    for name, pod in _pods().items():
        volumes = {one["name"] for one in pod.get("volumes", [])}
        for one in pod.get("volumes", []):
            assert one.get("persistentVolumeClaim", {}).get("claimName") in {None, *claims}
            assert one.get("configMap", {}).get("name") in {None, *maps}
        templates = _of("StatefulSet").get(name, {}).get("volumeClaimTemplates", [])
        volumes |= {one["metadata"]["name"] for one in templates}
        for container in pod["containers"]:
            assert {one["name"] for one in container["volumeMounts"]} == volumes


def test_the_cases_are_put_where_the_study_looks_for_them():
    claim, pod = FILL
    assert claim in MANIFEST  # so that applying it again changes nothing
    spec, study = pod["spec"], _pods()["study"]
    assert spec["volumes"] == [one for one in study["volumes"] if one["name"] == "data"]
    (mount,) = spec["containers"][0]["volumeMounts"]
    assert mount in study["containers"][0]["volumeMounts"]
    data = yaml.safe_load((ROOT / "experiments/variants/study.yaml").read_text())["base"]["data"]
    assert f"kubectl cp -n study {data} {pod['metadata']['name']}:/kits_ml/{data} " in README
    # in a namespace that is there, before the jobs look for them
    commands = re.findall(r"^ +(?:\| )?kubectl (create|apply|cp) (.*)", README, re.MULTILINE)
    assert [name for name, _ in commands] == ["create", "apply", "cp", "apply"]
    assert [rest for name, rest in commands if name == "apply"] == ["-n study -f fill.yaml", "-n study -f -"]


def test_secrets_and_labels_are_there():
    secrets = {
        (one["metadata"]["name"], key) for one in MANIFEST if one["kind"] == "Secret" for key in one["stringData"]
    }
    variables = [one for pod in _pods().values() for container in pod["containers"] for one in container["env"]]
    wanted = [one["valueFrom"]["secretKeyRef"] for one in variables if "valueFrom" in one]
    assert {(one["name"], one["key"]) for one in wanted} == secrets
    labels = [one["template"]["metadata"]["labels"] for one in _of("StatefulSet").values()]
    labels += [one["template"]["metadata"]["labels"] for one in _of("Deployment").values()]
    assert all(service["selector"] in labels for service in _of("Service").values())


def test_addresses_name_services():
    """Each host of each address is a service, by either file's names; each variable in it is set."""
    for name, words in _containers().items():
        hosts = {host for word in words for host in re.findall(r"://[^/@]*@?([a-z]+)[:/]", word)}
        assert hosts <= set(_of("Service") if name.startswith("kubernetes") else COMPOSE["services"]), name
        assert hosts, name
    for pod in _pods().values():
        for one in pod["containers"]:
            variables = set(re.findall(r"\$\((\w+)\)", " ".join(one.get("args", []))))
            assert variables <= {variable["name"] for variable in one["env"]}


def test_the_study_that_workers_join_is_the_one_that_is_begun():
    for kind in ("compose", "kubernetes"):
        words = _containers()
        file = words[f"{kind} study"][3]
        assert yaml.safe_load((ROOT / file).read_text())["name"] == words[f"{kind} worker"][3]


def test_both_files_start_the_same():
    """But for how options are written and variables named."""

    def flat(words: list[str]) -> list[str]:
        text = re.sub(r"(--[\w-]+)=", r"\1 ", " ".join(words))
        return re.sub(r"\$[({](\w+)[)}]", r"\1", text).split()

    found = _containers()
    for name in ("mlflow", "study", "worker"):
        assert flat(found[f"kubernetes {name}"]) == flat(found[f"compose {name}"])


def test_the_image_is_built_from_what_is_sent():
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text().split("\n")
    sent = {line[1:] for line in ignored if line.startswith("!")}
    copied = set()
    for line in (ROOT / "deploy/Dockerfile").read_text().splitlines():
        if line.startswith("COPY"):
            copied |= set(line.split()[1:-1])
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)
