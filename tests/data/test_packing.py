"""Packed datasets are read by jobs as the files that they were."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from core.artifacts import Library
from core.data.io import packing
from core.data.io.packing import is_packed, pack
from core.data.sources.corpus import read_corpus
from core.data.sources.inputs import make_context
from core.data.uploads import staging
from core.data.uploads.upload import inspect
from core.errors import BadData
from core.jobs.protocol import RunRequest
from core.process.attempt import run_attempt
from core.runtime.reporter import RecordingReporter
from core.spec import parse_spec
from tests.data.pages import SMALL, page

DOCUMENTS = {"kind": "prepare", "task": "triplets", "chunking": SMALL, "balance": {"min_rows": 0}}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    for topic in ("river", "market", "engine"):
        (root / topic / "images").mkdir(parents=True)
        (root / topic / "images" / "a.png").write_bytes(b"\x89PNG")
        for number in range(6):
            (root / topic / f"{number}.md").write_text(page(topic, number), encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MOST_FILES", 10)
    monkeypatch.setattr(staging, "MOST_FILES", 10)


def job(folder: Path, spec: dict, library: Library, dataset: str) -> Path:
    """Runs a prepare job on an artifact as a worker does; the folder of its dataset."""
    folder.mkdir()
    request = RunRequest(
        job_id="j",
        attempt=1,
        spec=parse_spec({**spec, "source": {"ref": "dataset:docs", **spec.get("source", {})}}).model_dump(
            mode="json"
        ),
        inputs={"dataset:docs": {"uri": dataset}},
        artifact_url=library.root,
        checkpoints=folder / "checkpoints",
        cache=folder / "cache",
    )
    result = run_attempt(make_context(request, folder, RecordingReporter()))
    assert result.state == "succeeded", result.end_reason
    assert not (folder / "unpacked").exists()
    return library.fetch(result.outputs["dataset"].uri, folder / "made")


def published(library: Library, folder: Path, tmp_path: Path, *, packed: bool) -> str:
    """A copy of a folder as an artifact, in the form of an upload of many files or of few."""
    if packed:
        pack(folder, tmp_path / "packed")
        return library.publish(tmp_path / "packed", "dataset", {}).uri
    return library.publish(Path(shutil.copytree(folder, tmp_path / "loose")), "dataset", {}).uri


@pytest.mark.parametrize("remote", [False, True], ids=["local storage", "object storage"])
def test_packed_documents_are_prepared_as_their_files_are(tree, tmp_path, remote):
    url = f"memory://{tmp_path.name}" if remote else (tmp_path / "artifacts").as_uri()
    library = Library(url)
    made = {
        packed: job(
            tmp_path / f"job-{packed}",
            DOCUMENTS,
            library,
            published(library, tree, tmp_path / f"copy-{packed}", packed=packed),
        )
        for packed in (False, True)
    }
    assert pq.read_table(made[True] / "train.parquet") == pq.read_table(made[False] / "train.parquet")
    facts = [json.loads((made[packed] / "dataset.json").read_text()) for packed in (False, True)]
    assert [fact["statistics"] for fact in facts[1:]] == [facts[0]["statistics"]]
    assert len(pq.read_table(made[True] / "train.parquet")) > 18


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("train-{:05}.jsonl", {"kind": "prepare"}),
        ("part/{:05}.md", {**DOCUMENTS, "source": {"format": "markdown"}}),
        ("part/{:05}.rst", {**DOCUMENTS, "source": {"format": "rst"}}),
        ("{:05}.json", {**DOCUMENTS, "source": {"format": "chunks"}}),
    ],
)
def test_packed_files_of_every_format_are_prepared(tmp_path, name, spec):
    folder = tmp_path / "source"
    for number in range(15):
        file = folder / name.format(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix in (".md", ".rst"):
            file.write_text(page(f"topic{number}", number))
        else:
            values = {"text": page(f"topic{number}", number), "title": f"Title {number}"}
            pair = {"query": f"query number {number}", "positive": page(f"topic{number}", number)}
            file.write_text(json.dumps(values if file.suffix == ".json" else pair) + "\n")
    library = Library((tmp_path / "artifacts").as_uri())
    uri = published(library, folder, tmp_path, packed=True)
    assert is_packed(library.fetch(uri, tmp_path / "cache"))
    made = job(tmp_path / "job", spec, library, uri)
    assert len(pq.read_table(made / "train.parquet")) >= 15


def test_a_corpus_of_packed_documents(tree, tmp_path):
    pack(tree, tmp_path / "packed")
    assert list(read_corpus(tmp_path / "packed")) == list(read_corpus(tree))


def test_what_is_found_in_packed_documents_is_what_is_found_in_files(tree, tmp_path):
    pack(tree, tmp_path / "packed")
    assert vars(inspect(tmp_path / "packed")) == vars(inspect(tree))


@pytest.mark.parametrize("other", ["b.md", "train.jsonl", "folder"])
def test_a_folder_with_more_than_the_pack_is_no_packed_dataset(tree, tmp_path, other):
    pack(tree, tmp_path / "packed")
    (tmp_path / "packed" / ".preview.json").write_text("{}")
    assert is_packed(tmp_path / "packed")
    (tmp_path / "packed" / other).mkdir()
    assert not is_packed(tmp_path / "packed")


def test_the_same_tree_packs_to_the_same_bytes(tree, tmp_path):
    pack(tree, tmp_path / "one")
    for file in sorted(tree.rglob("*.md"), reverse=True):  # written again, in another order, by somebody else
        text = file.read_text()
        file.unlink()
        file.write_text(text)
        file.chmod(0o600)
    pack(tree, tmp_path / "two")
    for name in (packing.PACKED, packing.INDEX):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_pack_that_is_cut_off_is_not_read_as_less(tree, tmp_path):
    pack(tree, tmp_path / "packed")
    whole = (tmp_path / "packed" / packing.PACKED).read_bytes()
    (tmp_path / "packed" / packing.PACKED).write_bytes(whole[:3000])
    with pytest.raises(BadData, match="shorter"):
        list(read_corpus(tmp_path / "packed"))
