"""House rules that a machine can hold."""

import ast
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest

import core
from api.app import create_app
from core.jobs.reasons import EndReason
from core.jobs.state import MOVES, JobState
from core.jobs.views import QueueView
from core.settings import Settings

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("module", ["api.app", "worker.celery_app", "client.cli"])
def test_server_worker_and_client_never_import_torch(module: str):
    heavy = ["torch", "transformers", "sentence_transformers", "datasets", "pyarrow"]
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


def test_server_and_client_run_on_what_they_declare():
    """The API's image has the base dependencies alone; here a finder hides all others."""
    code = """
import importlib.metadata as metadata, re, sys
from packaging.requirements import Requirement

def closure(name, extras, seen):
    key = (re.sub("[-_.]+", "-", name).lower(), extras)
    if key in seen:
        return
    seen.add(key)
    try:
        requirements = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for text in requirements:
        one = Requirement(text)
        contexts = [{"extra": extra} for extra in (extras or ("",))]
        if one.marker is None or any(one.marker.evaluate(context) for context in contexts):
            closure(one.name, tuple(sorted(one.extras)), seen)

seen = set()
closure("reason-service", (), seen)
declared = {name for name, _ in seen}
hidden = {
    module
    for module, names in metadata.packages_distributions().items()
    if not any(re.sub("[-_.]+", "-", name).lower() in declared for name in names)
}

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(name)

for module in [name for name in sys.modules if name.partition(".")[0] in hidden]:
    del sys.modules[module]
sys.meta_path.insert(0, Hide())
assert "torch" in hidden and "scipy" in hidden and "fastapi" not in hidden
import api.__main__, client.cli, migrations, kombu.transport.redis, kombu.transport.pyamqp
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def package_imports(depth: int, below: str) -> dict[str, set[str]]:
    """package -> the packages that its files import; packages have names of so many parts."""

    def package_of(module: str) -> str:
        return ".".join(module.split(".")[:depth])

    found: dict[str, set[str]] = {}
    for path in (ROOT / below.replace(".", "/")).rglob("*.py"):
        package = package_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        names = found.setdefault(package, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{below}."):
                names.add(package_of(str(node.module)))
    return {package: names - {package} for package, names in found.items()}


@pytest.mark.parametrize(("depth", "below"), [(2, "core"), (3, "core.data"), (3, "core.families")])
def test_no_packages_import_each_other_in_a_circle(depth: int, below: str):
    """Imports inside of functions count."""
    TopologicalSorter(package_imports(depth, below)).prepare()  # raises CycleError


def test_no_test_module_is_imported_from():
    """What several of them need is in a helper module or a conftest. Imports inside of functions count."""
    found = []
    for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                modules = [f"{node.module or ''}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            else:
                continue
            if any(part.startswith("test_") for module in modules for part in module.split(".")):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_no_package_of_core_has_more_files_than_one_can_survey():
    folders = {path.parent for path in (ROOT / "core").rglob("*.py")}
    many = {
        str(folder.relative_to(ROOT)): count
        for folder in folders
        if (count := len([path for path in folder.glob("*.py") if path.name != "__init__.py"])) > 12
    }
    assert many == {}


def test_pages_are_written_in_lines_that_fit():
    """Tables, code and tags stand as they must."""
    long = []
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        code = False
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            code ^= line.lstrip().startswith("```")
            if len(line) > 120 and not code and not line.startswith(("|", "<", "!")):
                long.append(f"{page.relative_to(ROOT)}:{number}")
    assert long == []


def test_every_setting_is_documented():
    text = (ROOT / "docs" / "settings.md").read_text()
    missing = [name for name in Settings.model_fields if f"`REASON_{name.upper()}`" not in text]
    assert missing == []


def test_every_state_and_end_reason_is_documented():
    text = (ROOT / "docs" / "jobs.md").read_text()
    words = [state.value for state in JobState] + [reason.value for reason in EndReason]
    assert [word for word in words if f"`{word}`" not in text] == []


def test_every_state_has_its_moves_and_final_ones_end():
    assert set(MOVES) == set(JobState)
    assert MOVES[JobState.SUCCEEDED] == frozenset()
    reachable = {target for targets in MOVES.values() for target in targets}
    assert reachable | {JobState.WAITING} == set(JobState)


def test_every_end_reason_knows_its_sentence_and_a_reachable_state():
    for reason in EndReason:
        assert reason.sentence
        assert reason.state in MOVES[JobState.RUNNING] | MOVES[JobState.WAITING]
    assert EndReason.of("written by a newer version") is EndReason.CRASHED


def test_the_queue_counts_the_jobs_in_every_state():
    assert {state.value for state in JobState} <= set(QueueView.model_fields)


def test_no_registry_host_and_no_path_of_one_machine_is_committed():
    tracked = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    for name in tracked:
        if name.endswith((".png", ".safetensors", "test_house.py")):
            continue
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "/opt/pypi" not in text, name
        assert "/work/main" not in text, name


def test_nothing_large_is_committed():
    """Packages, weights and data sets belong elsewhere."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    sizes = {name: (ROOT / name).stat().st_size for name in tracked.split("\0") if name}
    assert {name: size for name, size in sizes.items() if size > 1_000_000} == {}


def test_the_fork_server_never_initialises_cuda():
    """On a host with a GPU: bitsandbytes, imported by peft, would."""
    code = (
        "import torch; torch.cuda.is_available = lambda: True\n"
        "import core.process.preload, sys\n"
        "found = [name for name in ('bitsandbytes', 'peft') if name in sys.modules]\n"
        "print(found, torch.cuda.is_initialized())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[] False"


def test_a_job_s_process_forgets_the_way_to_the_database():
    """Models' code and experiment trackers see the environment; storage needs its own part of it."""
    code = (
        "import os, core.process.main as process\n"
        "process._forget_credentials()\n"
        "print(sorted(name for name in os.environ if name in "
        "('PGPASSWORD', 'REASON_DATABASE_URL', 'REASON_API_KEY', 'AWS_ACCESS_KEY_ID')))"
    )
    secrets = {"PGPASSWORD": "x", "REASON_DATABASE_URL": "x", "REASON_API_KEY": "x", "AWS_ACCESS_KEY_ID": "x"}
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, **secrets},
    )
    assert found.stdout.strip() == "['AWS_ACCESS_KEY_ID']"


def test_no_folder_here_has_the_name_of_a_library():
    """Python and the linter would take ``datasets/`` for Hugging Face's package."""
    import importlib.metadata

    folders = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"api", "client", "core", "worker"}
    libraries = set(importlib.metadata.packages_distributions())
    assert folders & libraries <= {"migrations", "tests", "benchmarks"}


def test_no_pattern_lets_a_trailing_newline_through():
    """``$`` matches before it. Patterns are matched with ``fullmatch``, and those of pydantic are Rust's."""
    import ast

    found, matching = [], {"re.compile", "re.match", "re.search", "re.fullmatch"}
    for folder in ("api", "client", "worker", "core/spec", "core/store", "core/jobs"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in matching:
                    text = ast.unparse(node.args[0])
                    if text.rstrip("'\"").endswith("$"):
                        found.append(f"{path.name}:{node.lineno}: {text}")
    assert found == []


def test_the_version_stands_in_one_place(tmp_path):
    assert metadata.version("reason-service") == core.__version__
    schema = create_app(Settings(data_dir=tmp_path, artifact_url=f"file://{tmp_path}/artifacts")).openapi()
    assert schema["info"]["version"] == core.__version__
