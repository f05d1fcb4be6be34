"""What can be held about images and compose files without an engine; docker/test.sh does the rest."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.settings import Settings

ROOT = Path(__file__).parent.parent.parent
COMPOSE = (ROOT / "docker-compose.yml").read_text()
HOSTS = (ROOT / "docker" / "hosts.yml").read_text()
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


@pytest.fixture
def services() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE)["services"]


def test_the_images_have_the_tested_torch():
    [pinned] = re.findall(r"^torch==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)
    [built] = re.findall(
        r"^ARG TORCH_VERSION=(.+)$", (ROOT / "docker" / "worker.Dockerfile").read_text(), re.M
    )
    assert built == pinned


def test_a_layer_of_dependencies_asks_for_what_the_project_asks_for(tmp_path: Path):
    for name in ("requirements.py", "../pyproject.toml"):
        source = ROOT / "docker" / name
        (tmp_path / source.name).write_text(source.read_text())
    printed = subprocess.run(
        [sys.executable, str(tmp_path / "requirements.py"), "s3,tools"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert printed[:-1] == [*project["dependencies"], *extras["s3"], *extras["tools"]]
    nested = subprocess.run(
        [sys.executable, str(tmp_path / "requirements.py"), "train"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    wanted = {*project["dependencies"], *extras["train"], *extras["training"]} - {"reason-service[training]"}
    assert set(nested) == wanted


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_what_an_image_copies_reaches_the_engine_and_it_does_not_run_as_root(dockerfile: Path):
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    lines = dockerfile.read_text().splitlines()
    for line in lines:
        if line.startswith("COPY "):
            for source in line.split()[1:-1]:
                assert source in sent, line
                assert (ROOT / source).exists(), line
    assert [line for line in lines if line.startswith("USER ")] == ["USER reason"]
    assert any(line.startswith("ARG PYTHON_IMAGE=python:") for line in lines)
    assert any(line.startswith("HEALTHCHECK ") for line in lines)


def test_every_room_that_an_image_needs_is_in_it():
    """The API's image has no worker and no training process to start; the worker's has no API."""
    rooms = {
        "api": {"api", "client", "core", "migrations"},
        "worker": {"client", "core", "migrations", "worker"},
    }
    for name, expected in rooms.items():
        text = (ROOT / "docker" / f"{name}.Dockerfile").read_text()
        assert set(re.findall(r"^COPY (\w+) \w+$", text, re.M)) == expected


def test_only_what_docker_compose_1_29_knows_is_used():
    for text in (COMPOSE, HOSTS):
        assert not re.search(r"\$\{[^}]*\$\{", text), "nested defaults"
        assert not re.search(r"\$\{\w+:?\+", text), "alternative values"
    assert "include" not in yaml.safe_load(COMPOSE)


def test_every_variable_is_explained():
    told = (ROOT / ".env.example").read_text() + (ROOT / "docs" / "deploy.md").read_text()
    plain = {"POSTGRES_PORT", "REDIS_PORT"} | {name for name in variables(COMPOSE) if name.endswith("_IMAGE")}
    plain |= {name for name in variables(COMPOSE) if name.endswith("_PUBLISH")}
    settings = {f"REASON_{name.upper()}" for name in Settings.model_fields}
    unknown = [
        name for name in (variables(COMPOSE) | variables(HOSTS)) - plain - settings if name not in told
    ]
    assert unknown == []


def variables(text: str) -> set[str]:
    return set(re.findall(r"\$\{(\w+)", text))


def test_the_service_is_given_settings_that_exist(services):
    known = {f"REASON_{name.upper()}" for name in Settings.model_fields}
    for name in ("api", "worker", "worker-cpu", "migrate"):
        given = {key for key in services[name]["environment"] if key.startswith("REASON_")}
        assert given
        assert given <= known, name


def test_every_setting_reaches_a_container(services):
    of_images = {"data_dir", "allowed_paths", "heartbeat_file"}
    of_clients = {"api_url", "api_key"}
    without_meaning_here = {"queues", "broker_polling_seconds"}  # each worker takes all; Redis pushes
    given = {key for service in services.values() for key in service.get("environment") or {}}
    for name in set(Settings.model_fields) - of_images - of_clients - without_meaning_here:
        assert f"REASON_{name.upper()}" in given


def test_no_secret_is_in_the_files(services):
    for name, service in services.items():
        for key, value in (service.get("environment") or {}).items():
            if re.search("PASSWORD|TOKEN|SECRET|KEY|AUTH", key):
                assert value is None or re.fullmatch(r"\$\{\w+:(-|\?[^}]*)\}", value), (name, key)
    assert re.search(r"^POSTGRES_PASSWORD=$", (ROOT / ".env.example").read_text(), re.M)
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert ".env" in ignored


def test_nothing_listens_beyond_this_host_by_itself(services):
    for name, service in services.items():
        for port in service.get("ports", []):
            assert re.fullmatch(r"\$\{\w+:-127\.0\.0\.1:\d+\}:\d+", port), (name, port)
    assert "ports" not in services["postgres"]
    assert "ports" not in services["redis"]


def test_a_worker_is_given_longer_than_its_checkpoint_takes(services):
    grace = int(re.search(r":-(\d+)", services["worker"]["environment"]["REASON_GRACE_SECONDS"])[1])
    assert grace == Settings.model_fields["grace_seconds"].default
    minutes = int(re.search(r":-(\d+)m", services["worker"]["stop_grace_period"])[1])
    assert minutes * 60 > grace + 30


def test_the_gpu_worker_has_the_gpus_and_the_other_one_has_a_profile(services):
    [device] = services["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", "all", ["gpu"])
    assert "profiles" not in services["worker"]
    assert "deploy" not in services["worker-cpu"]
    assert services["worker-cpu"]["profiles"] == ["cpu"]
    for worker in (services["worker"], services["worker-cpu"]):
        assert worker["shm_size"]
        assert worker["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_the_script_that_proves_it_parses():
    scripts = [ROOT / "docker" / "test.sh", *(ROOT / "docker" / "standins").glob("*.sh")]
    for script in scripts:
        subprocess.run(["bash", "-n", str(script)], check=True)


LIMITS = ROOT / "docker" / "limits.sh"


def with_limits(script: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run bash with the helpers of docker/test.sh. ``path``: a folder of programs that replace others."""
    environment = {"PATH": f"{path}:/usr/bin:/bin" if path else "/usr/bin:/bin"}
    return subprocess.run(
        ["bash", "-c", f"set -euo pipefail; . {LIMITS}; {script}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "script",
    [
        "limited 1 sleep 1000",
        "limited 1 bash -c 'trap \"\" TERM; sleep 3 & wait; sleep 3; sleep 1000'",
        "limit=1; docker info",
        "limit=1; docker info >/dev/null 2>&1",
        "until_true 1 false",
        "until_true 1 docker info",
    ],
)
def test_a_command_that_never_ends_is_ended_and_named(tmp_path: Path, script: str):
    (tmp_path / "docker").write_text("#!/bin/bash\nexec sleep 1000\n")
    (tmp_path / "docker").chmod(0o755)
    done = with_limits(script, tmp_path)
    assert done.returncode != 0
    assert re.search(r"no end within 1 s: |did not come true within 1 s: ", done.stderr), done.stderr


def test_a_command_within_its_limit_keeps_its_output_and_its_status():
    done = with_limits("limited 60 echo fine; limited 60 bash -c 'exit 7'")
    assert (done.stdout, done.returncode, done.stderr) == ("fine\n", 7, "")


def test_the_script_waits_only_where_there_is_a_limit():
    """Loops are those of `until_true`; whatever may hang runs under a limit."""
    script = (ROOT / "docker" / "test.sh").read_text()
    code = re.sub(r"<<'?END'?\n.*?\nEND\n", "\n", script, flags=re.S)
    code = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith("#"))
    assert not re.search(r"(^|[;&|(]\s*)until ", code, re.M)
    assert not re.search(r"(^|[;&|(]\s*)wait\b", code, re.M)
    assert not re.search(r"while (true|:|!)", code)
    for line in map(str.strip, code.splitlines()):
        for program in ("apt-get", "debootstrap", "docker-compose", "python3 -m pip"):
            if re.search(rf"(^|[;&|(]\s*|then |else ){re.escape(program)} ", line):
                pytest.fail(f"{program} may wait for ever: {line}")


def test_nothing_waits_for_the_migrations_without_starting_them():
    """docker-compose 1.29 waits for ever in `up --no-start`, and in `run` for what nobody starts."""
    for path in (ROOT / "docker" / "test.sh", ROOT / "docs" / "deploy.md"):
        commands = [line for line in path.read_text().splitlines() if "compose" in line or "files=(" in line]
        assert not [line for line in commands if "--no-start" in line and "`" not in line], path
