"""Damaged models, data and checkpoints, and full disks: every job ends by a reason that helps."""

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.data.sources.inputs import make_context
from core.jobs.events import Event
from core.jobs.protocol import EVENTS, RESULT, RunRequest
from core.process import attempt as attempt_module
from core.process.attempt import run_attempt
from core.runtime.context import RunContext, Stopped
from core.runtime.reporter import JsonlReporter, RecordingReporter
from tests.disks import Disk, mounted
from tests.tiny import make_colbert, make_cross_encoder
from tests.training.running import StopAt, run


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def spec(model: Path, pairs_file: Path) -> dict:
    return {
        "kind": "train",
        "base_model": f"file:{model}",
        "dataset": f"file:{pairs_file}",
        "batch_size": 8,
        "epochs": 2,
        "logging_steps": 1,
        "checkpoint": {"every_steps": 4, "keep": 3},
    }


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def garbled(path: Path) -> None:
    path.write_bytes(b"garbage" * 100)


def as_list(path: Path) -> None:
    path.write_text("[]")


def without_model(path: Path) -> None:
    content = json.loads(path.read_text())
    del content["model"]
    path.write_text(json.dumps(content))


def wider(path: Path) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "hidden_size": 64}))


@pytest.mark.parametrize(
    ("file", "spoil"),
    [
        ("model.safetensors", cut_short),
        ("model.safetensors", emptied),
        ("model.safetensors", garbled),
        ("tokenizer.json", cut_short),
        ("tokenizer.json", garbled),
        ("tokenizer.json", without_model),
        ("config.json", garbled),
        ("config.json", as_list),
        ("config.json", wider),
        ("modules.json", garbled),
        ("modules.json", as_list),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_damaged_model_is_a_bad_model(spec, model, tmp_path, file, spoil):
    [path] = [found for found in model.rglob(file) if found.parent == model]
    spoil(path)
    result, _ = run(spec, tmp_path / "out")
    assert (result.state, result.end_reason.code) == ("failed", "bad_model"), result.end_reason
    assert f"file:{model}" in result.end_reason.message or file in result.end_reason.message


@pytest.mark.parametrize("family", ["late_interaction", "cross_encoder"])
def test_a_damaged_model_of_another_family_is_a_bad_model(spec, tiny_model, tmp_path, family):
    make = {"late_interaction": make_colbert, "cross_encoder": make_cross_encoder}[family]
    damaged = make(tmp_path / family, tiny_model)
    for path in damaged.rglob("*.safetensors"):
        cut_short(path)
    result, _ = run({**spec, "family": family, "base_model": f"file:{damaged}"}, tmp_path / "out")
    assert result.end_reason.code == "bad_model", result.end_reason


def parquet(path: Path, rows: list[dict]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def arrow(path: Path, rows: list[dict]) -> Path:
    table = pa.Table.from_pylist(rows)
    path = path.with_suffix(".arrow")
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return path


def packed(path: Path, rows: list[dict]) -> Path:
    path = path.with_suffix(".jsonl.gz")
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))
    return path


@pytest.mark.parametrize("spoil", [cut_short, emptied, garbled], ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("write", [parquet, arrow, packed], ids=lambda write: write.__name__)
def test_a_damaged_dataset_is_bad_data(spec, tmp_path, write, spoil):
    rows = [{"query": f"what is {number}", "positive": f"it is {number}"} for number in range(500)]
    path = write(tmp_path / "rows", rows)
    spoil(path)
    result, _ = run({**spec, "dataset": f"file:{path}"}, tmp_path / "out")
    assert result.end_reason.code == "bad_data", result.end_reason


def test_texts_without_a_word_are_ranked(tmp_path):
    """bm25s fails on an empty vocabulary: no query may meet it."""
    corpus = tmp_path / "set"
    (corpus / "qrels").mkdir(parents=True)
    (corpus / "corpus.jsonl").write_text('{"_id": "d", "title": "", "text": "?!"}\n')
    (corpus / "queries.jsonl").write_text('{"_id": "q", "text": "anything"}\n')
    (corpus / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    spec = {"kind": "evaluate", "models": ["bm25"], "datasets": [f"file:{corpus}"], "metrics": ["ndcg@10"]}
    result, _ = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason


@pytest.mark.parametrize(
    "file",
    ["weights.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"],
)
def test_a_damaged_checkpoint_is_passed_over(spec, tmp_path, file):
    """Of the right size, so that only its loading shows it."""
    out = tmp_path / "out"
    result, _ = run(spec, out, reporter=(stopping := StopAt(9)), stop=stopping.stop)
    assert result.state == "cancelled"
    newest = max(out.glob("checkpoints/attempt-1/checkpoint-*"), key=lambda path: int(path.name[11:]))
    size = (newest / file).stat().st_size
    (newest / file).write_bytes(os.urandom(size))
    result, events = run(spec, out)
    if result.state != "succeeded":  # what the manifest and the states do not show
        assert result.end_reason.code == "storage_failed", result.end_reason
        assert f"{newest.name} is damaged" in result.end_reason.message
        result, events = run(spec, out)
    assert result.state == "succeeded", result.end_reason
    told = [getattr(event.data, "message", "") for event in events]
    [going_on] = [message for message in told if message.startswith("Going on from")]
    assert newest.name not in going_on


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk", "32m") as made:
        yield made


class At(RecordingReporter):
    """Does something when a job tells a thing for the first time."""

    def __init__(self, when: Callable[[Event], bool], act: Callable[[], object]) -> None:
        super().__init__()
        self._when, self._act, self._done = when, act, False

    def emit(self, event: Event) -> None:
        super().emit(event)
        if not self._done and self._when(event):
            self._done = True
            self._act()


@pytest.mark.parametrize(
    "when",
    [
        lambda event: event.type == "phase" and event.data.phase == "loading",
        lambda event: event.type == "metric" and event.data.step >= 2,
        lambda event: event.type == "checkpoint",
        lambda event: event.type == "phase" and event.data.phase == "publishing",
        lambda event: event.type == "output",
    ],
    ids=["while loading", "before a checkpoint", "after a checkpoint", "while publishing", "between outputs"],
)
def test_a_disk_that_fills_up_is_a_storage_failure_at_any_time(spec, disk, when):
    result, _ = run(spec, disk.folder / "out", reporter=At(when, disk.fill), cache=disk.folder / "cache")
    assert (result.state, result.end_reason.code) == ("failed", "storage_failed"), result.end_reason
    assert "No space left on device" in result.end_reason.message
    disk.free()
    result, _ = run(spec, disk.folder / "out", cache=disk.folder / "cache")
    assert result.state == "succeeded", result.end_reason


def test_a_disk_that_becomes_read_only_is_a_storage_failure(spec, disk):
    def loading(event: Event) -> bool:
        return event.type == "phase" and event.data.phase == "starting"

    reporter = At(loading, lambda: disk.remount("ro"))  # no file is open for writing yet
    result, _ = run(spec, disk.folder / "out", reporter=reporter, cache=disk.folder / "cache")
    assert (result.state, result.end_reason.code) == ("failed", "storage_failed"), result.end_reason
    assert "Read-only file system" in result.end_reason.message
    disk.remount("rw")
    result, _ = run(spec, disk.folder / "out", cache=disk.folder / "cache")
    assert result.state == "succeeded", result.end_reason


def context(folder: Path) -> RunContext:
    folder.mkdir(parents=True, exist_ok=True)
    request = RunRequest(
        job_id="job", attempt=1, spec={}, checkpoints=folder / "checkpoints", cache=folder / "cache"
    )
    return make_context(request, folder, JsonlReporter(folder / EVENTS))


def does(act: Callable[[RunContext], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_module, "run_job", act)


def test_a_result_that_cannot_be_written_is_sent(disk, monkeypatch):
    does(lambda _: disk.fill(), monkeypatch)
    sent: list[str] = []
    result = run_attempt(context(disk.folder / "run"), sent.append)
    assert result.end_reason.code == "storage_failed"
    assert [json.loads(text)["end_reason"]["code"] for text in sent] == ["storage_failed"]
    assert not (disk.folder / "run" / RESULT).exists()


def test_the_first_reason_stands_when_the_result_cannot_be_written(disk, monkeypatch):
    def run_job(_: RunContext) -> None:
        disk.fill()
        raise Stopped

    does(run_job, monkeypatch)
    made = context(disk.folder / "run")
    made.stop.request("cancel")
    sent: list[str] = []
    run_attempt(made, sent.append)
    assert json.loads(sent[0])["end_reason"]["code"] == "cancelled"


@pytest.mark.parametrize("lost", ["deleted", "moved", "events deleted", "events emptied", "events replaced"])
def test_a_run_folder_that_is_lost_asks_the_job_to_stop(tmp_path, monkeypatch, lost):
    """Before it ends, what it has done can be saved elsewhere."""
    folder = tmp_path / "run"
    saved = []

    def run_job(context: RunContext) -> None:
        context.notice("still there")
        match lost:
            case "deleted":
                shutil.rmtree(folder)
            case "moved":
                folder.rename(tmp_path / "moved")
            case "events deleted":
                (folder / EVENTS).unlink()
            case "events emptied":
                (folder / EVENTS).write_text("")
            case "events replaced":
                shutil.copy(folder / EVENTS, folder / "copy")
                (folder / "copy").rename(folder / EVENTS)
        context.notice("nobody reads this")
        assert context.should_stop()
        saved.append("a checkpoint")
        context.check_stop()

    does(run_job, monkeypatch)
    result = run_attempt(context(folder), lambda _: None)
    assert saved
    assert result.end_reason.code == "storage_failed"
    assert f"The run folder {folder}" in result.end_reason.message


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            lambda made: FileNotFoundError(2, "No such file", str(made.folder / "work" / "x")),
            "storage_failed",
            "removed",
        ),
        (
            lambda made: FileNotFoundError(2, "No such file", str(made.request.cache / "x")),
            "storage_failed",
            "removed",
        ),
        (
            lambda made: PermissionError(13, "Permission denied", str(made.folder / "x")),
            "storage_failed",
            "may not",
        ),
        (lambda _: FileNotFoundError(2, "No such file", "/data/rows.jsonl"), "bad_data", "dataset.ref"),
        (
            lambda _: PermissionError(13, "Permission denied", "/data/model/config.json"),
            "bad_model",
            "base_model",
        ),
        (lambda _: FileNotFoundError(2, "No such file", "/elsewhere"), "crashed", "FileNotFoundError"),
        (lambda _: RuntimeError("boom"), "crashed", "RuntimeError: boom"),
        (lambda _: AssertionError(), "crashed", "AssertionError: no message"),
        (lambda _: MemoryError(), "out_of_memory", "ran out of memory"),
    ],
    ids=[
        "work file",
        "cache file",
        "own folder",
        "dataset",
        "model",
        "elsewhere",
        "unknown",
        "assertion",
        "memory",
    ],
)
def test_what_is_missing_decides_the_reason(tmp_path, monkeypatch, error, code, words):
    made = context(tmp_path / "run")
    made.request.spec = {
        "kind": "train",
        "base_model": "file:/data/model",
        "dataset": "file:/data/rows.jsonl",
    }

    def run_job(context: RunContext) -> None:
        raise error(context)

    does(run_job, monkeypatch)
    result = run_attempt(made)
    assert result.end_reason.code == code, result.end_reason
    assert words in result.end_reason.message
