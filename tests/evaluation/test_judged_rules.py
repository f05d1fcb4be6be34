"""Whole jobs on judged sets as people have them: what is left out, dropped, told and refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from core.engine.inference import check_finite
from core.errors import BadModel, Diverged
from core.jobs.events import EventType
from core.kinds.train import _broken_by_training
from core.process.local import run_local
from core.ranking.search import shard_vectors
from core.runtime.reporter import RecordingReporter
from tests.data.judged_sets import write_set
from tests.evaluation.running import evaluate, report
from tests.tiny import WORDS
from tests.training.running import of

COUNT = 8


@pytest.fixture
def arguments(tmp_path) -> Path:
    """Queries that are documents themselves; each is answered by another document on its words."""
    queries = [(f"c{n}", f"{word} or {WORDS[n + 8]}") for n, word in enumerate(WORDS[:COUNT])]
    answers = [(f"k{n}", f"a {word} is no {WORDS[n + 8]}") for n, word in enumerate(WORDS[:COUNT])]
    qrels = [(f"c{n}", f"k{n}", 1) for n in range(COUNT)]
    return write_set(tmp_path / "arguments", [*queries, *answers], queries, qrels)


def ranked(out: Path, dataset: str, model: str) -> dict[str, list[str]]:
    """Query -> documents, best first, of the run that a job has published."""
    found: dict[str, list[str]] = {}
    for line in (out / "run" / dataset / f"{model}.trec").read_text().splitlines():
        query, _, document, *_ = line.split()
        found.setdefault(query, []).append(document)
    return found


def told(events) -> list[str]:
    return [data["message"] for data in of(events, EventType.NOTICE)]


def test_no_ranking_of_any_family_has_the_query_itself(models, arguments, tmp_path):
    given = tmp_path / "theirs.trec"
    given.write_text(
        "".join(f"c{n} Q0 {d}{n} 1 {s} t\n" for n in range(COUNT) for d, s in (("c", 9), ("k", 1)))
    )
    names = ["one", "colbert", "reranker"]
    result, events = evaluate(
        tmp_path / "out",
        [*(models[name] for name in names), "bm25"],
        [arguments, {"ref": f"file:{arguments}", "name": "given", "run": f"file:{given}"}],
        metrics=["mrr@10"],
    )
    assert result.state == "succeeded", result.end_reason
    for dataset in ("arguments", "given"):
        for name in [*names, "bm25"]:
            for query, documents in ranked(tmp_path / "out", dataset, name).items():
                assert query not in documents
    found = report(tmp_path / "out")
    assert found["scores"]["bm25"]["arguments"]["mrr@10"] == 1.0
    assert found["candidates"]["given"]["mrr@10"] == 1.0
    assert found["datasets"]["arguments"]["identical_ids"] == {
        "setting": "auto",
        "coinciding": COUNT,
        "relevant": 0,
        "same_text": COUNT,
        "excluded": COUNT,
    }
    sentence = "queries whose id is that of a document: 8 (c0, c1, c2, ...)."
    assert any(sentence in message for message in told(events))
    assert sentence in (tmp_path / "out" / "report" / "report.md").read_text()
    assert "Tokens of BM25:" in (tmp_path / "out" / "report" / "report.md").read_text()
    assert found["models"]["bm25"]["tokenizer"] == found["models"]["reranker"]["retriever_tokenizer"]


def test_the_setting_keeps_them(arguments, tmp_path):
    dataset = {"ref": f"file:{arguments}", "identical_ids": "keep"}
    result, _ = evaluate(tmp_path / "out", ["bm25"], [dataset], metrics=["mrr@10"])
    assert result.state == "succeeded", result.end_reason
    assert all(
        documents[0] == query for query, documents in ranked(tmp_path / "out", "arguments", "bm25").items()
    )
    assert report(tmp_path / "out")["scores"]["bm25"]["arguments"]["mrr@10"] < 1.0


@pytest.mark.parametrize("on_missing", ["fail", "drop"])
def test_what_is_missing_fails_or_is_dropped_in_every_place(arguments, tmp_path, on_missing):
    with (arguments / "qrels" / "test.tsv").open("a") as file:
        file.write("c0\tgone\t1\nnobody\tk1\t1\n")
    run = tmp_path / "run.trec"
    run.write_text("c0 Q0 lost 1 3 t\nc0 Q0 k0 2 2 t\n")
    dataset = {"ref": f"file:{arguments}", "on_missing": on_missing, "run": f"file:{run}"}
    result, events = evaluate(tmp_path / "out", ["bm25"], [dataset], metrics=["recall@10"])
    if on_missing == "fail":
        assert result.state == "failed"
        assert result.end_reason.code == "bad_data"
        assert "judges document 'gone'" in result.end_reason.message
        assert "on_missing: drop" in result.end_reason.message
        return
    assert result.state == "succeeded", result.end_reason
    remarks = report(tmp_path / "out")["datasets"]["arguments"]["remarks"]
    assert {kind: remarks[kind]["count"] for kind in remarks if "missing" in kind} == {
        "document_missing": 1,
        "query_missing": 1,
        "run_document_missing": 1,
        "run_query_missing": COUNT - 1,
    }
    assert any("judgments of documents that are not in the corpus: 1 (gone)" in text for text in told(events))


def test_training_evaluates_by_the_same_rules(models, arguments, tmp_path):
    with (arguments / "qrels" / "test.tsv").open("a") as file:
        file.write("c0\tgone\t1\n")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"query": f"a {w}", "positive": f"the {w}"}) + "\n" for w in WORDS))
    reporter = RecordingReporter()
    spec = {
        "kind": "train",
        "base_model": f"file:{models['one']}",
        "dataset": f"file:{rows}",
        "max_steps": 1,
        "batch_size": 8,
        "evaluation": {
            "datasets": [{"ref": f"file:{arguments}", "split": "test", "on_missing": "drop"}],
            "metrics": ["recall@10"],
        },
    }
    result = run_local(spec, tmp_path / "out", reporter)
    assert result.state == "succeeded", result.end_reason
    sentences = [text for text in told(reporter.events) if text.startswith("arguments: ")]
    assert any("left out of their own ranking" in text for text in sentences)
    assert any("on_missing: drop" in text for text in sentences)
    page = (tmp_path / "out" / "report" / "report.md").read_text()
    assert "judgments of documents that are not in the corpus: 1 (gone)" in page


# -- models that give NaN ----------------------------------------------------------------------------


@pytest.fixture
def broken(models, tmp_path):
    """Copies a model of the fixture with all of its word embeddings set to NaN."""

    def break_model(name: str) -> Path:
        folder = tmp_path / f"broken-{name}"
        for path in models[name].rglob("*"):
            if path.is_file():
                target = folder / path.relative_to(models[name])
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        weights = max(folder.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
        tensors = load_file(weights)
        key = next(key for key in tensors if key.endswith("word_embeddings.weight"))
        tensors[key].fill_(float("nan"))
        save_file(tensors, weights, metadata={"format": "pt"})
        return folder

    return break_model


@pytest.mark.parametrize("name", ["one", "colbert", "reranker"])
@pytest.mark.parametrize("metrics", [["ndcg@10"], ["triplet_accuracy"]], ids=["rankings", "triplets"])
def test_a_model_that_gives_nan_has_no_scores(broken, arguments, tmp_path, name, metrics):
    with (arguments / "qrels" / "test.tsv").open("a") as file:
        file.write("c0\tk1\t0\n")
    result, _ = evaluate(tmp_path / "out", [broken(name)], [arguments], metrics=metrics)
    assert (result.state, result.end_reason.code) == ("failed", "bad_model")
    assert f"broken-{name} gives" in result.end_reason.message
    assert "not finite numbers" in result.end_reason.message


def test_a_retriever_that_gives_nan_is_named(broken, models, arguments, tmp_path):
    retriever = broken("one")
    asked = {"retriever": f"file:{retriever}", "depth": 5}
    result, _ = evaluate(
        tmp_path / "out", [models["reranker"]], [arguments], metrics=["ndcg@10"], rerank=asked
    )
    assert (result.state, result.end_reason.code) == ("failed", "bad_model")
    assert "broken-one gives" in result.end_reason.message


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"kind": "mine", "dataset": {"ref": "file:SET", "split": "test"}}, id="mine"),
        pytest.param({"kind": "embed", "corpus": "file:SET"}, id="embed"),
    ],
)
@pytest.mark.parametrize("name", ["one", "colbert"])
def test_nan_is_neither_mined_with_nor_stored(broken, arguments, tmp_path, spec, name):
    folder = broken(name)
    family = {"family": "late_interaction"} if name == "colbert" else {}
    filled = json.loads(json.dumps(spec).replace("SET", str(arguments)))
    result = run_local({**filled, **family, "model": f"file:{folder}"}, tmp_path / "out", RecordingReporter())
    assert (result.state, result.end_reason.code) == ("failed", "bad_model")
    assert f"broken-{name} gives" in result.end_reason.message


def test_a_broken_base_model_is_told_before_training(broken, arguments, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"query": f"a {w}", "positive": f"the {w}"}) + "\n" for w in WORDS))
    spec = {
        "kind": "train",
        "base_model": f"file:{broken('one')}",
        "dataset": f"file:{rows}",
        "max_steps": 1,
        "evaluation": {"datasets": [{"ref": f"file:{arguments}", "split": "test"}], "metrics": ["ndcg@10"]},
    }
    result = run_local(spec, tmp_path / "out", RecordingReporter())
    assert (result.state, result.end_reason.code) == ("failed", "bad_model")
    assert "broken-one gives" in result.end_reason.message


def test_a_model_that_training_has_broken_has_diverged():
    trainer = SimpleNamespace(state=SimpleNamespace(global_step=7))
    with (
        pytest.raises(Diverged, match=r"after step 7: m gives .* Lower learning_rate"),
        _broken_by_training(trainer),
    ):
        check_finite(SimpleNamespace(loaded_from="m"), np.array([[1.0, 2.0], [np.inf, 0.0]]), "vectors")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_stored_embeddings_that_are_not_finite_are_refused(tmp_path, value):
    """A dot product of more than 65,504 is infinite in float16."""
    np.save(tmp_path / "shard.npy", np.array([[1.0, value]], np.float16))
    with pytest.raises(BadModel, match="half: false"):
        list(shard_vectors([tmp_path / "shard.npy"]))


# -- BM25 where there is little to count -------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        pytest.param(["!!!", "???", "..."], 1.0, id="punctuation"),
        pytest.param(["a", "b", "c"], 1.0, id="single_letters"),
        pytest.param(["the", "of", "and"], 1.0, id="stop_words"),
        pytest.param(["今天天气很好", "股票市场下跌", "我喜欢猫"], 1.0, id="chinese"),
        pytest.param(["แมวดำนอนหลับ", "ตลาดหุ้นตก", "ฝนตกหนัก"], 1.0, id="thai"),
        pytest.param([" ", " ", " "], 0.0, id="blank_documents"),
    ],
)
def test_bm25_ranks_whatever_the_corpus_is(models, tmp_path, texts, expected):
    corpus = [(f"d{n}", text) for n, text in enumerate(texts)]
    queries = [(f"q{n}", text if text.strip() else "river") for n, text in enumerate(texts)]
    folder = write_set(
        tmp_path / "set", corpus, [*queries, ("q9", " ")], [(f"q{n}", f"d{n}", 1) for n in range(len(texts))]
    )
    result, _ = evaluate(
        tmp_path / "out", [models["reranker"], "bm25"], [folder], metrics=["mrr@10"], latency_queries=2
    )
    assert result.state == "succeeded", result.end_reason
    assert report(tmp_path / "out")["scores"]["bm25"]["set"]["mrr@10"] == expected
