"""The notebooks run from their first cell to their last, on tiny data and without a network."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.tiny import WORDS

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAMES = ("Eval-Baseline", "Fine-Tuning", "Negatives")


@pytest.fixture
def tiny_world(tmp_path, tiny_model, monkeypatch) -> Path:
    """A model, a tree of source code and a judged set in place of a hub."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(12):
        functions = [
            f'def {word}_{number}(value):\n    """Return the {word} of {other} number {number}."""\n'
            f'    total = value + {index}\n    names = ["{word}", "{other}"]\n    return total, names\n'
            for index, (word, other) in enumerate(zip(WORDS[:6], WORDS[number : number + 6], strict=False))
        ]
        (tree / f"module_{number}.py").write_text("\n\n".join(functions))
    judged = tmp_path / "judged"
    (judged / "qrels").mkdir(parents=True)
    documents = [
        {"_id": f"d{n}", "title": "", "text": f"{word} is document {n}"} for n, word in enumerate(WORDS)
    ]
    queries = [{"_id": f"q{n}", "text": f"what is {word}"} for n, word in enumerate(WORDS[:8])]
    (judged / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in documents))
    (judged / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in queries))
    qrels = "".join(f"q{n}\td{n}\t1\n" for n in range(8))
    (judged / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{qrels}")
    monkeypatch.setenv("REASON_NOTEBOOK_MODEL", f"file:{tiny_model}")
    monkeypatch.setenv("REASON_NOTEBOOK_DATASETS", f"file:{judged}")
    monkeypatch.setenv("REASON_NOTEBOOK_SOURCE", str(tree))
    monkeypatch.setenv("REASON_NOTEBOOK_STEPS", "4")
    monkeypatch.setenv("REASON_NOTEBOOK_DIR", str(tmp_path / "out"))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parent))
    monkeypatch.setenv("MPLBACKEND", "agg")
    return tmp_path


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    NotebookClient(
        notebook, timeout=280, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_to_its_end(name, tiny_world, monkeypatch):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    execute(notebook, tiny_world)
    errors = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "error"
    ]
    assert not errors
    done = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in done)
    printed = "".join(str(output.get("text")) for cell in done for output in cell.get("outputs", ()))
    assert "\x1b[" not in printed  # no progress bars
    # Another model is another job: no result of the first one is shown for it.
    monkeypatch.setenv("REASON_NOTEBOOK_MODEL", "file:/nonexistent")
    with pytest.raises(CellExecutionError):
        execute(notebook, tiny_world)


def test_what_is_committed_has_no_outputs_and_a_badge():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(NAMES)
    for name in NAMES:
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        nbformat.validate(notebook)
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
        assert f"notebooks/{name}.ipynb" in notebook.cells[0].source  # opens this one
