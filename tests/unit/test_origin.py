"""What a job's result depends on: the key changes with it, and with nothing else."""

import os
from pathlib import Path

import pytest

from core.data.fetching.model_hub import find_commit
from core.jobs.origin import Origin
from core.jobs.protocol import ArtifactInput
from core.origin import code
from core.origin.contents import Contents
from core.origin.key import find_origin, result_key
from core.spec import parse_spec
from core.spec.parse import SPEC_BY_KIND
from core.spec.parts.refs import parse_ref
from core.spec.parts.rows import READING

TRAIN = {"kind": "train", "base_model": "file:/m", "dataset": "job:job_1/dataset"}
CONTENTS = {"file:/m": "sha256:m", "job:job_1/dataset": "sha256:d"}


def key(spec=TRAIN, contents=CONTENTS, **origin):
    spec = parse_spec(spec)
    return result_key(spec, find_origin(spec.kind, contents, **origin))


def test_names_and_where_it_runs_do_not_count():
    for change in (
        {"name": "other"},
        {"labels": {"team": "a"}},
        {"priority": 3},
        {"max_attempts": 7},
        {"timeout_seconds": 60.0},
        {"depends_on": ["job_7"]},
        {"resources": {"gpus": 0}},
    ):
        assert key({**TRAIN, **change}) == key(), change


def test_a_reference_counts_by_what_it_holds():
    moved = {"file:/elsewhere/m": "sha256:m", "job:job_2/dataset": "sha256:d"}
    spec = {**TRAIN, "base_model": "file:/elsewhere/m", "dataset": "job:job_2/dataset"}
    assert key(spec, moved) == key()
    assert key(contents={**CONTENTS, "file:/m": "sha256:other"}) != key()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7},
        {"learning_rate": 1e-3},
        {"prompts": {"query": "query: "}},
        {"lengths": {"query": 16}},
        {"batch_size": 8},
        {"evaluation": {"metrics": ["map@3"]}},
    ],
)
def test_every_setting_counts(change):
    assert key({**TRAIN, **change}) != key()


@pytest.mark.parametrize("change", [{"device": "NVIDIA H100"}, {"processes": 2}])
def test_the_machine_counts(change):
    assert key(**change) != key()


def test_code_and_libraries_count():
    spec, origin = parse_spec(TRAIN), find_origin("train", CONTENTS)
    changed = [
        origin.model_copy(update={"code": "other"}),
        origin.model_copy(update={"python": "3.99"}),
        origin.model_copy(update={"libraries": {**origin.libraries, "torch": "99"}}),
    ]
    assert {"torch", "transformers", "tokenizers", "pyarrow"} <= set(origin.libraries)
    assert len({result_key(spec, found) for found in [origin, *changed]}) == 4
    assert result_key(spec, origin.model_copy(update={"version": "99"})) == key()


def test_there_is_no_key_where_the_speed_of_the_machine_is_measured():
    evaluate = {"kind": "evaluate", "models": ["bm25"], "datasets": ["file:/d"]}
    known = {"file:/d": "sha256:d"}
    assert key(evaluate, known) is not None
    assert key({**evaluate, "latency_queries": 10}, known) is None


def test_there_is_no_key_where_the_content_is_not_known():
    assert key(contents={**CONTENTS, "file:/m": None}) is None
    assert Origin(code="", contents={"a": None, "b": "x"}).unknown == ["a"]
    assert key(trust_remote_code=True) is None
    evaluate = {"kind": "evaluate", "models": ["bm25"], "datasets": ["beir:scifact"]}
    assert key(evaluate, {"beir:scifact": None}) is None


def test_documents_that_a_task_adds_count():
    prepare = {"kind": "prepare", "source": "file:/rows", "task": "reasonir_hq"}
    references = parse_spec(prepare).references().values()
    assert len(references) > 1, "BRIGHT's documents are added"
    one, two = (dict.fromkeys(references, content) for content in ("sha256:1", "sha256:2"))
    assert key(prepare, one) != key(prepare, {**one, list(references)[-1]: "sha256:2"})
    assert key(prepare, two) is not None


# -- contents ------------------------------------------------------------------------------------


def contents(reference: str, inputs=None) -> Contents:
    spec = parse_spec({"kind": "train", "base_model": "o/m", "dataset": reference})
    references = [found for found in spec.find_references() if found.text == reference]
    return Contents(references, inputs or {}, offline=True)


def found(reference: str, inputs=None) -> str | None:
    return contents(reference, inputs).found[reference]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "one" / "docs"
    (place / "inner").mkdir(parents=True)
    (place / "a.md").write_text("a")
    (place / "inner" / "b.md").write_text("b")
    return place


def test_a_folder_counts_by_names_and_bytes(folder, tmp_path):
    first = found(f"file:{folder}")
    assert first.startswith("sha256:")
    copy = tmp_path / "two" / "docs"
    copy.parent.mkdir()
    os.system(f"cp -r {folder} {copy}")
    assert found(f"file:{copy}") == first, "where it lies does not count"
    (copy / ".hidden").write_text("x")
    assert found(f"file:{copy}") == first, "no reader reads hidden files"
    (copy / "a.md").rename(copy / "c.md")
    renamed = found(f"file:{copy}")
    (copy / "c.md").rename(copy / "a.md")
    (copy / "inner" / "b.md").write_text("B")
    changed = found(f"file:{copy}")
    (copy / "new.md").write_text("")
    assert len({first, renamed, changed, found(f"file:{copy}")}) == 4


def test_links_count_by_what_they_lead_to_and_never_for_ever(folder, tmp_path):
    blob = tmp_path / "blob"
    blob.write_text("one")
    (folder / "linked").symlink_to(blob)
    (folder / "inner" / "above").symlink_to(folder)
    first = found(f"file:{folder}")
    blob.write_text("two")
    assert found(f"file:{folder}") != first


def test_how_a_dataset_is_read_counts(folder):
    """A hidden file, and the one that readers read."""
    before = contents(f"file:{folder}")
    (folder / READING).write_text('{"columns": {"query": "title"}}')
    assert found(f"file:{folder}") != before.found[f"file:{folder}"]
    assert not before.unchanged()


def test_configurations_and_splits_of_a_hub_dataset_are_different_data(monkeypatch):
    monkeypatch.setattr("core.origin.contents.find_commit", lambda *_, **__: "c" * 40)
    names = ("hf:o/d", "hf:o/d:en", "hf:o/d:de", "hf:o/d:en/train", "hf:o/d:en/test")
    assert len({found(name) for name in names}) == len(names)


def test_a_text_that_names_a_model_and_a_dataset_is_not_known(monkeypatch):
    monkeypatch.setattr("core.origin.contents.find_commit", lambda *_, **__: "c" * 40)
    spec = parse_spec({"kind": "embed", "model": "hf:o/x", "corpus": "hf:o/x"})
    assert Contents(spec.find_references(), {}, offline=True).found == {"hf:o/x": None}


def test_a_change_after_the_look_is_seen(folder):
    seen = contents(f"file:{folder}")
    assert seen.unchanged()
    (folder / "a.md").write_text("A")
    assert not seen.unchanged()


def test_hashing_can_be_stopped(folder):
    def stop() -> None:
        raise KeyboardInterrupt

    spec = parse_spec({"kind": "train", "base_model": "o/m", "dataset": f"file:{folder}"})
    with pytest.raises(KeyboardInterrupt):
        Contents(spec.find_references(), {}, offline=True, check_stop=stop)


def test_what_is_not_there_is_not_known(tmp_path):
    assert found(f"file:{tmp_path / 'missing'}") is None
    assert found("beir:scifact") is None
    assert found("dataset:x") is None
    known = {"dataset:x": ArtifactInput(uri="file:///x", sha256="f" * 64)}
    assert found("dataset:x", known) == f"sha256:{'f' * 64}"


def test_a_model_of_the_hub_counts_by_its_commit(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    pinned = "a" * 40
    assert find_commit(parse_ref(f"hf:org/m@{pinned}"), "model", offline=True) == pinned
    assert find_commit(parse_ref("org/m"), "model", offline=True) is None
    refs = tmp_path / "models--org--m" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("b" * 40)
    assert find_commit(parse_ref("org/m"), "model", offline=True) == "b" * 40
    assert find_commit(parse_ref("org/m"), "dataset", offline=True) is None


# -- code ----------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of four modules, in place of this one."""
    for name, text in {
        "core/__init__.py": "",
        "core/process/dispatch.py": "import core.common\n\ndef run():\n    import core.kinds.a\n",
        "core/data/sources/inputs.py": "",
        "core/common.py": "def shared():\n    '''Says what.'''\n    return 1\n",
        "core/kinds/a.py": "from core import deep\n",
        "core/kinds/b.py": "",
        "core/deep.py": "LIMIT = 3\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(code, "_ROOT", tmp_path)

    def forget() -> None:
        for remembered in (code.code_sha256, code._module_sha256, code._imports, code._file, code._parse):
            remembered.cache_clear()

    def hashes() -> tuple[str, str]:
        forget()
        return code.code_sha256("a"), code.code_sha256("b")

    yield tmp_path / "core", hashes
    monkeypatch.undo()
    forget()


def test_code_counts_for_the_kinds_that_reach_it(project):
    core, hashes = project
    a, b = hashes()
    (core / "deep.py").write_text("LIMIT = 4\n")
    assert hashes()[0] != a
    assert hashes()[1] == b
    (core / "common.py").write_text("def shared():\n    return 2\n")
    assert hashes()[1] != b


def test_code_that_was_replaced_after_the_start_is_seen(project):
    core, _ = project
    code._state.cache_clear()
    code.remember_code(["a"])
    assert code.is_code_unchanged()
    (core / "deep.py").write_text("LIMIT = 12345\n")
    assert not code.is_code_unchanged()
    code._state.cache_clear()


def test_comments_docstrings_and_layout_do_not_count(project):
    core, hashes = project
    before = hashes()
    (core / "common.py").write_text("# new\ndef shared():\n    '''Other words.'''\n\n    return (1)\n")
    assert hashes() == before


def test_every_module_of_a_kind_is_reached():
    reached = {kind: code.reached_modules(kind) for kind in SPEC_BY_KIND}
    assert {"core.mining.mine_rows", "core.training.trainer", "core.data.fetching.remote"} <= reached["train"]
    assert "core.training.trainer" not in reached["prepare"] | reached["mine"] | reached["embed"]
    for kind, modules in reached.items():
        assert {name for name in modules if name.startswith("core.kinds.")} == {f"core.kinds.{kind}"}
        assert not {"core.store", "core.settings"} & modules, "a job's process has neither"
