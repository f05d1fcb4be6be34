"""Embed jobs: what lies in the files, what a search finds in them, and that a killed one goes on."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sentence_transformers import SentenceTransformer

from core.cli import search as search_cli
from core.jobs.events import EventType
from core.process.local import run_local
from core.retrieval import encode as encode_room
from core.runtime.reporter import RecordingReporter
from tests.tiny import WORDS
from tests.training.running import of

REPOSITORY = Path(__file__).parents[2]
TEXTS = [f"{one} {other}" for one in WORDS[:13] for other in WORDS[13:]]


@pytest.fixture
def corpus(tmp_path) -> Path:
    path = tmp_path / "corpus.jsonl"
    lines = [{"_id": f"d{number}", "text": text} for number, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def embed(out: Path, model: Path, corpus: Path | None, **fields):
    reporter = RecordingReporter()
    spec = {"kind": "embed", "model": f"file:{model}", "resources": {"gpus": 0}, **fields}
    if corpus is not None:
        spec["corpus"] = f"file:{corpus}"
    result = run_local(spec, out, reporter, cache=out.parent / "cache")
    return result, reporter.events


def pylate_model(folder: str, device: str):
    return pytest.importorskip("pylate.models").ColBERT(folder, device=device)


def page(out: Path) -> dict:
    return json.loads((out / "embeddings" / "embeddings.json").read_text())


def vectors(out: Path) -> np.ndarray:
    return np.concatenate([np.load(path) for path in sorted((out / "embeddings").glob("vectors-*.npy"))])


def test_shards_hold_what_the_library_makes(models, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(encode_room, "SHARD", 50)
    result, _ = embed(tmp_path / "out", models["one"], corpus, shard=70)
    assert result.state == "succeeded", result.end_reason
    folder = tmp_path / "out" / "embeddings"
    wanted = SentenceTransformer(str(models["one"]), device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(vectors(tmp_path / "out"), wanted, atol=1e-5)
    assert [len(np.load(path)) for path in sorted(folder.glob("vectors-*.npy"))] == [70, 70, 29]
    ids = [name for path in sorted(folder.glob("ids-*.json")) for name in json.loads(path.read_text())]
    assert ids == [f"d{number}" for number in range(len(TEXTS))]
    texts = pq.read_table(folder / "texts-00002.parquet").to_pylist()
    assert texts[-1] == {"id": f"d{len(TEXTS) - 1}", "text": TEXTS[-1]}
    about = page(tmp_path / "out")
    assert (about["texts"], about["dimension"], about["precision"]) == (len(TEXTS), 32, "float32")
    assert result.metrics["embeddings"]["bytes"] == 4 * 32 * len(TEXTS)


@pytest.mark.parametrize(
    ("precision", "dtype", "width"),
    [("float16", np.float16, 16), ("int8", np.int8, 16), ("binary", np.uint8, 2)],
)
def test_fewer_bytes_are_searched_as_they_are(models, corpus, tmp_path, capsys, precision, dtype, width):
    result, _ = embed(
        tmp_path / "out", models["one"], corpus, precision=precision, dimension=16, keep_texts=False
    )
    assert result.state == "succeeded", result.end_reason
    stored = vectors(tmp_path / "out")
    assert (stored.dtype, stored.shape) == (dtype, (len(TEXTS), width))
    assert not list((tmp_path / "out" / "embeddings").glob("texts-*"))
    assert search_cli.main([str(tmp_path / "out"), TEXTS[40], "-k", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [hit["text"] for hit in found["hits"]] == [None] * 3
    if precision != "binary":  # of 16 signs several texts have the same
        assert found["hits"][0]["id"] == "d40"


def test_a_search_shows_texts(models, corpus, tmp_path, capsys):
    result, _ = embed(tmp_path / "out", models["one"], corpus, shard=60)
    assert result.state == "succeeded", result.end_reason
    assert search_cli.main([str(tmp_path / "out" / "embeddings"), TEXTS[100], TEXTS[5], "-k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == TEXTS[100]
    assert lines[1].split()[2] == "d100"
    assert lines[2].strip() == TEXTS[100]
    assert lines[6].split()[2] == "d5"


def test_a_model_is_tried_on_a_corpus(models, corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("REASON_DATA_DIR", str(tmp_path / "data"))
    asked = [str(models["one"]), "--corpus", str(corpus), TEXTS[7], "--json", "-k", "1"]
    for _ in range(2):
        assert search_cli.main(asked) == 0
        assert json.loads(capsys.readouterr().out)["hits"][0] == {
            "id": "d7",
            "score": pytest.approx(1.0, abs=1e-5),
            "text": TEXTS[7],
        }


def test_late_interaction_keeps_every_token(models, corpus, tmp_path, capsys):
    result, _ = embed(tmp_path / "out", models["colbert"], corpus, shard=1)
    assert result.state == "succeeded", result.end_reason
    wanted = pylate_model(str(models["colbert"]), device="cpu").encode(TEXTS, is_query=False)
    np.testing.assert_allclose(vectors(tmp_path / "out"), np.concatenate(wanted), atol=1e-5)
    assert page(tmp_path / "out")["vectors"] == sum(map(len, wanted))
    assert search_cli.main([str(tmp_path / "out"), TEXTS[33], "-k", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["hits"][0]
    model = pylate_model(str(models["colbert"]), device="cpu")
    query = model.encode([TEXTS[33]], is_query=True)[0]
    scores = [float((query @ document.T).max(1).sum()) for document in wanted]
    assert found["id"] == f"d{int(np.argmax(scores))}"
    assert found["score"] == pytest.approx(max(scores), rel=1e-4)


def test_documents_are_searched_by_passages(models, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("REASON_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "docs").mkdir()
    sections = [f"## Of {word}\n\n" + f"{word} and {word} again. " * 30 for word in ("river", "market")]
    (tmp_path / "docs" / "page.md").write_text("# Page\n\n" + "\n\n".join(sections))
    asked = [str(models["one"]), "river", "-k", "5", "--json", "--corpus", str(tmp_path / "docs")]
    assert search_cli.main(asked) == 0
    found = json.loads(capsys.readouterr().out)["hits"]
    assert {hit["id"] for hit in found} == {"page.md#0", "page.md#1"}


def test_a_plaid_index_is_pylates_and_is_searched(models, corpus, tmp_path, capsys):
    PLAID = pytest.importorskip("pylate.indexes").PLAID  # noqa: N806

    result, _ = embed(tmp_path / "out", models["colbert"], corpus, index="plaid")
    assert result.state == "succeeded", result.end_reason
    folder = tmp_path / "out" / "embeddings" / "plaid"
    query = pylate_model(str(models["colbert"]), device="cpu").encode([TEXTS[20]], is_query=True)
    index = PLAID(index_folder=str(folder), index_name="corpus", device="cpu", show_progress=False)
    theirs = [hit["id"] for hit in index(query, k=5)[0]]
    assert search_cli.main([str(tmp_path / "out"), TEXTS[20], "-k", "5", "--json"]) == 0
    ours = [hit["id"] for hit in json.loads(capsys.readouterr().out)["hits"]]
    assert ours == theirs
    assert page(tmp_path / "out")["index"] == "plaid"


def test_texts_of_the_spec_are_numbered(models, tmp_path):
    result, _ = embed(tmp_path / "out", models["one"], None, texts=["river", "mountain"], role="query")
    assert result.state == "succeeded", result.end_reason
    assert json.loads((tmp_path / "out" / "embeddings" / "ids-00000.json").read_text()) == ["0", "1"]
    assert search_cli.main([str(tmp_path / "out"), "river"]) == 1  # queries are no corpus


def test_other_weights_are_refused(models, corpus, tmp_path, capsys):
    result, _ = embed(tmp_path / "out", models["one"], corpus)
    assert result.state == "succeeded", result.end_reason
    assert search_cli.main([str(tmp_path / "out"), "river", "--model", str(models["other"])]) == 1
    assert "its weights differ" in capsys.readouterr().err
    assert search_cli.main([str(tmp_path / "missing"), "river"]) == 1
    assert "no folder with embeddings found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "fields", "sentence"),
    [
        ("reranker", {}, "is a cross-encoder"),
        ("one", {"dimension": 64}, "has 32 dimensions"),
        ("one", {"index": "plaid"}, "has one vector a text"),
        ("colbert", {"precision": "int8"}, "has one vector a token"),
    ],
)
def test_what_cannot_be_is_said(models, corpus, tmp_path, model, fields, sentence):
    result, _ = embed(tmp_path / "out", models[model], corpus, **fields)
    assert result.state == "failed"
    assert sentence in result.end_reason.message


def test_bad_documents_are_counted_and_ids_that_repeat_are_told(models, tmp_path):
    path = tmp_path / "corpus.jsonl"
    lines = [json.dumps({"_id": f"d{number % 90}", "text": f"river {number}"}) for number in range(100)]
    path.write_text("\n".join([*lines[:50], "{broken", *lines[50:]]) + "\n")
    result, events = embed(tmp_path / "out", models["one"], path)
    assert result.state == "succeeded", result.end_reason
    told = [data["message"] for data in of(events, EventType.NOTICE)]
    told_of = "texts with the id of an earlier one, but another text: 10 (d0, d1, d2). All of them are kept."
    assert told_of in told
    assert page(tmp_path / "out")["unreadable"] == 1
    result, _ = embed(tmp_path / "strict", models["one"], path, max_reject_share=0)
    assert result.state == "failed"


_SLOW = """
import sys
from core.retrieval import encode
from core.families import dense
real = dense.make_encode
encode.SHARD = 10
def slow(*some):
    made = real(*some)
    def encode_slowly(texts, role):
        import time
        time.sleep(0.25)
        return made(texts, role)
    return encode_slowly
dense.make_encode = slow
from core.cli.run import run_main
sys.exit(run_main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_killed_embed_encodes_no_shard_twice(models, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("REASON_DATA_DIR", str(tmp_path / "data"))
    spec = tmp_path / "embed.yaml"
    spec.write_text(json.dumps({"kind": "embed", "model": str(models["one"]), "corpus": str(corpus)}))
    command = [sys.executable, "-c", _SLOW, str(spec), "--out", str(tmp_path / "out")]
    kept = tmp_path / "data" / "cache" / "embeddings"
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while len(list(kept.glob("*/[!.]*.npy"))) < 4:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_ino for path in kept.glob("*/[!.]*.npy")}
    assert 4 <= len(before) < 17
    again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert f"{10 * len(before)} of {len(TEXTS)} texts had been encoded before" in again.stderr
    assert all(path.stat().st_ino == inode for path, inode in before.items())
    wanted = SentenceTransformer(str(models["one"]), device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(vectors(tmp_path / "out"), wanted, atol=1e-5)
