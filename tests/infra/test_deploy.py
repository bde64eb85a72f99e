"""infra/deploy: images, compose and manifests against well-kept linters, and against what SECURITY.md promises."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url

BINARIES = Path(sys.prefix) / "bin"
SECRET = re.compile(r"(PASSWORD|SECRET|TOKEN)(?!.*(_FILE|FOLDER))")


@pytest.fixture(scope="module")
def deploy(repository: Path) -> Path:
    return repository / "infra" / "deploy"


@pytest.fixture(scope="module")
def compose(deploy: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((deploy / "compose.yaml").read_text())
    return found


@pytest.fixture(scope="module")
def manifests(deploy: Path) -> list[dict[str, Any]]:
    files = [path for path in sorted((deploy / "kubernetes").glob("*.yaml")) if path.name != "kustomization.yaml"]
    return [document for path in files for document in yaml.safe_load_all(path.read_text())]


def workloads(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What makes pods."""
    return [each for each in manifests if "template" in each.get("spec", {})]


def pods(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in workloads(manifests)}


def linted(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_linters_find_nothing(repository: Path) -> None:
    scripts = [str(path.relative_to(repository)) for path in sorted(repository.glob("infra/**/*.sh"))]
    assert len(scripts) >= 5
    assert not linted(BINARIES / "hadolint", "infra/deploy/Dockerfile", cwd=repository)
    assert not linted(BINARIES / "shellcheck", ".ci/run", *scripts, cwd=repository)
    assert not linted(BINARIES / "yamllint", "--strict", "infra", cwd=repository)


def test_manifests_keep_kubernetes_schemas(deploy: Path, tmp_path: Path) -> None:
    files = [path for path in sorted((deploy / "kubernetes").glob("*.yaml")) if path.name != "kustomization.yaml"]
    assert not linted(BINARIES / "kubernetes-validate", "--strict", *files, cwd=deploy)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(files[0].read_text().replace("replicas: 1", "replica: 1"))
    assert "replica" in linted(BINARIES / "kubernetes-validate", "--strict", wrong, cwd=deploy)


def test_kustomization_names_every_file(deploy: Path) -> None:
    folder = deploy / "kubernetes"
    named = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in folder.glob("*.yaml")} == {*named, "kustomization.yaml"}


def test_pods_are_not_root_bounded_and_without_secrets_in_the_open(manifests: list[dict[str, Any]]) -> None:
    found = pods(manifests)
    assert {"spark-master", "spark-worker", "mlflow", "airflow-api-server", "airflow-scheduler"} <= found.keys()
    for name, pod in found.items():
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"], name
        assert pod["enableServiceLinks"] is False, f"{name}: the Service mlflow would set MLFLOW_PORT to an address"
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert "memory" in container["resources"]["limits"] and "cpu" in container["resources"]["requests"], name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            assert "env" not in container, f"{name}: settings come from the ConfigMap, secrets from files"
        assert all("livenessProbe" in container for container in pod["containers"]), name
    (config,) = [each for each in manifests if each["kind"] == "ConfigMap"]
    assert not [key for key in config["data"] if SECRET.search(key)]
    trainer = found["airflow-scheduler"]["containers"][0]["resources"]
    assert trainer["limits"]["nvidia.com/gpu"] == trainer["requests"]["nvidia.com/gpu"] == 1


def test_services_select_pods_that_exist(manifests: list[dict[str, Any]]) -> None:
    for service in (each for each in manifests if each["kind"] == "Service"):
        wanted = service["spec"]["selector"].items()
        templates = [each["spec"]["template"] for each in workloads(manifests)]
        (chosen,) = [each for each in templates if wanted <= each["metadata"]["labels"].items()]
        ports = {port["containerPort"] for each in chosen["spec"]["containers"] for port in each.get("ports", [])}
        assert {port["port"] for port in service["spec"]["ports"]} <= ports, service["metadata"]["name"]


def test_compose_is_reachable_on_loopback_only_and_keeps_secrets_in_files(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        test = service["healthcheck"].get("test", [])
        assert test or service["healthcheck"] == {"disable": True}, name
        assert "jobs" not in test or test[1:3] == ["infra/deploy/entrypoint.sh", "airflow"], (
            f"{name}: it has the secrets"
        )
        assert not [
            key for key in service.get("environment", {}) if SECRET.search(key) and key != "AWS_ACCESS_KEY_ID"
        ], name
        assert set(service.get("secrets", [])) <= compose["secrets"].keys(), name


def test_both_know_the_same_parts(compose: dict[str, Any], manifests: list[dict[str, Any]]) -> None:
    own = {name for name in compose["services"] if name not in ("postgres", "store", "airflow-init")}
    assert own == set(pods(manifests))


def test_secrets_are_made_once_and_are_those_that_compose_mounts(
    deploy: Path, compose: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "secrets"

    def make() -> dict[str, str]:
        subprocess.run([str(deploy / "secrets.sh"), str(folder)], check=True, capture_output=True)
        return {path.name: path.read_text() for path in folder.iterdir()}

    made = make()
    assert make() == made and len(set(made.values())) == len(made)
    assert made.keys() == compose["secrets"].keys()
    assert {entry["file"] for entry in compose["secrets"].values()} == {f"secrets/{name}" for name in made}
    assert all(len(value) >= 32 for value in made.values())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_entrypoint_takes_secrets_from_files_and_says_which_is_missing(deploy: Path, tmp_path: Path) -> None:
    (tmp_path / "postgres_password").write_text("p@s/s %41")
    (tmp_path / "mlflow_password").write_text("of mlflow_password")
    (tmp_path / "airflow_passwords").write_text('{"admin": "x"}')
    env = {
        "PATH": os.environ["PATH"],
        "SECRETS_FOLDER": str(tmp_path),
        "POSTGRES_HOST": "db",
        "AIRFLOW_HOME": str(tmp_path / "home"),
    }

    def run(**more: str) -> subprocess.CompletedProcess[str]:
        command = [str(deploy / "entrypoint.sh"), "env"]
        return subprocess.run(command, env={**env, **more}, capture_output=True, text=True, check=False)

    seen = run().stdout.splitlines()
    assert "MLFLOW_TRACKING_PASSWORD=of mlflow_password" in seen
    (found,) = [line.partition("=")[2] for line in seen if line.startswith("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=")]
    url = make_url(found)
    assert (url.host, url.port, url.database, url.password) == ("db", 5432, "airflow", "p@s/s %41")
    copy = tmp_path / "home" / "simple_auth_manager_passwords.json.generated"
    assert copy.read_text() == '{"admin": "x"}' and stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert "MLFLOW_TRACKING_PASSWORD=given" in run(MLFLOW_TRACKING_PASSWORD="given").stdout.splitlines()
    (tmp_path / "postgres_password").unlink()
    done = run()
    assert done.returncode != 0 and "error: POSTGRES_PASSWORD: seen nothing; allowed: " in done.stderr
    done = subprocess.run([str(deploy / "mlflow.sh")], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: MLFLOW_DATABASE: seen nothing")


def test_each_service_of_compose_has_the_secrets_that_its_entrypoint_asks_for(
    deploy: Path, compose: dict[str, Any], tmp_path: Path
) -> None:
    ours = {name: one for name, one in compose["services"].items() if one["image"].startswith("hymirec-")}
    assert {"mlflow", "spark-worker", "airflow-scheduler"} <= ours.keys()
    for name, service in ours.items():
        folder = tmp_path / name
        folder.mkdir()
        for secret in service.get("secrets", []):
            (folder / secret).write_text("a secret")
        env = {"PATH": os.environ["PATH"], "SECRETS_FOLDER": str(folder), **service.get("environment", {})}
        command = [str(deploy / "entrypoint.sh"), "env"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        works = "SQL_ALCHEMY_CONN=" in done.stdout
        assert works == name.startswith(("airflow", "mlflow")), f"{name}: only these two know the databases"


def test_image_copies_what_there_is(repository: Path, deploy: Path) -> None:
    text = (deploy / "Dockerfile").read_text()
    sources = [word for line in re.findall(r"^COPY --chown=hymirec (.*)$", text, re.M) for word in line.split()[:-1]]
    assert sources and all((repository / source).exists() for source in sources)
    ignored = (repository / ".dockerignore").read_text().split()
    assert {".git", ".venv", "var", "infra/deploy/secrets"} <= set(ignored)
