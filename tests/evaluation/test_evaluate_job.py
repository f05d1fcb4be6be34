"""Evaluate jobs of every family: what they measure, compare, write down, and find again after a stop."""

import json
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from core.data.sources.retrieval import read_retrieval
from core.errors import InvalidRequest
from core.jobs.events import EventType
from core.process.local import run_local
from core.ranking.metrics import evaluate_run, mean
from core.ranking.runs import read_run
from core.runtime.context import StopSignal
from core.runtime.reporter import RecordingReporter
from core.spec import parse_spec
from tests.evaluation.running import METRICS, evaluate, report
from tests.tiny import WORDS
from tests.training.running import of


@pytest.fixture
def beir(tmp_path) -> Path:
    """Queries by words, documents by words and their neighbours, in two categories; one is excluded."""
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    documents = [
        {"_id": f"d{number}", "text": f"{word} {WORDS[(number + step) % len(WORDS)]} {step}"}
        for number, word in enumerate(WORDS)
        for step in (1, 5)
    ]
    for number, document in enumerate(documents):
        document["_id"] = f"d{number}"
    queries = [{"_id": f"q{number}", "text": f"what is {word}"} for number, word in enumerate(WORDS)]
    qrels = [f"q{number}\td{2 * number}\t1\nq{number}\td{(2 * number + 7) % 52}\t0" for number in range(26)]
    for name, lines in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(qrels) + "\n")
    return folder


def test_a_bi_encoder_ranks_as_its_library_does(models, beir, tmp_path):
    result, _ = evaluate(tmp_path / "out", [models["one"]], [beir])
    assert result.state == "succeeded", result.end_reason
    model = SentenceTransformer(str(models["one"]), device="cpu")
    dataset = read_retrieval(beir, "test")
    queries, documents = (
        model.encode(list(texts.values()), normalize_embeddings=True)
        for texts in (dataset.queries, dataset.corpus)
    )
    run = {
        query: {name: float(score) for name, score in zip(dataset.corpus, scores, strict=True)}
        for query, scores in zip(dataset.queries, queries @ documents.T, strict=True)
    }
    wanted = {metric: mean(values) for metric, values in evaluate_run(dataset.qrels, run, METRICS).items()}
    assert report(tmp_path / "out")["scores"]["one"]["beir"] == pytest.approx(wanted, abs=1e-6)
    kept = read_run(tmp_path / "out" / "run" / "beir" / "one.trec", dataset)
    for query, documents_of in kept.items():
        best = sorted(run[query], key=lambda name: -run[query][name])[:10]
        assert sum(run[query][name] for name in list(documents_of)[:10]) == pytest.approx(
            sum(run[query][name] for name in best), abs=1e-4
        )
    assert report(tmp_path / "out")["comparisons"] == []


def test_every_family_takes_part(models, beir, tmp_path):
    result, events = evaluate(
        tmp_path / "out",
        [models["colbert"], models["reranker"], models["one"], "bm25"],
        [beir],
        metrics=[*METRICS, "triplet_accuracy", "margin"],
        rerank={"depth": 20},
        latency_queries=3,
    )
    assert result.state == "succeeded", result.end_reason
    found = report(tmp_path / "out")
    families = {name: facts["family"] for name, facts in found["models"].items()}
    assert families == {
        "colbert": "late_interaction",
        "reranker": "cross_encoder",
        "one": "dense",
        "bm25": "lexical",
    }
    assert found["baseline"] == "bm25"
    # A cosine's margin and BM25's are no more comparable than metres and degrees.
    compared = {(item["model"], item["metric"]) for item in found["comparisons"]}
    assert ("one", "triplet_accuracy") in compared
    assert not [pair for pair in compared if pair[1] == "margin"]
    for name in families:
        scores = found["scores"][name]["beir"]
        assert set(scores) == {*METRICS, "triplet_accuracy", "margin"}
        assert found["latency_ms"][name]["beir"]["total"]["median"] > 0
    assert set(found["latency_ms"]["reranker"]["beir"]) == {"search", "rerank", "total"}
    assert found["scores"]["bm25"]["beir"]["triplet_accuracy"] == 1.0  # only the answer has the word
    assert found["candidates"]["beir"]["recall@10"] == found["scores"]["bm25"]["beir"]["recall@10"]
    # What is brought into order is what was found: no more of it is relevant.
    assert found["scores"]["reranker"]["beir"]["recall@10"] <= 1.0
    stored = found["stored"]["colbert"]["beir"]
    assert stored["bytes"] == stored["vectors"] * 2 * 16
    told = [data["message"] for data in of(events, EventType.NOTICE)]
    assert any(sentence.startswith("one on beir: ") for sentence in told)
    assert result.metrics["scores"]["one"]["beir"] == found["scores"]["one"]["beir"]


@pytest.fixture
def broken(models, tmp_path) -> Path:
    """The model ``one`` without its knowledge of words."""
    model = SentenceTransformer(str(models["one"]), device="cpu")
    with np.errstate(all="ignore"):
        for parameter in model[0].auto_model.embeddings.word_embeddings.parameters():
            parameter.data.zero_()  # every word is every other
    model.save_pretrained(str(tmp_path / "broken"), create_model_card=False)
    return tmp_path / "broken"


def test_a_model_against_itself_is_no_different_and_a_broken_one_is_worse(models, beir, tmp_path, broken):
    result, _ = evaluate(
        tmp_path / "out",
        [{"ref": f"file:{models['one']}", "name": "twin"}, broken, models["one"]],
        [beir],
    )
    assert result.state == "succeeded", result.end_reason
    outcomes = {item["model"]: item for item in report(tmp_path / "out")["comparisons"][:2]}
    assert outcomes["twin"]["outcome"] == "no difference"
    assert outcomes["twin"]["ties"] == len(WORDS)
    assert outcomes["broken"]["outcome"] == "worse"
    assert "Worse: ndcg@10 -" in result.metrics["verdicts"]["broken on beir"]
    page = (tmp_path / "out" / "report" / "report.html").read_text()
    assert 'class="bad"' in page
    assert 'class="even"' in page
    examples = report(tmp_path / "out")["examples"]["beir"]
    lost = next(example for example in examples if example["model"] == "broken")
    assert lost["relevant"][0]["text"]
    assert set(lost["first"]) == {"broken", "one"}


def test_precisions_and_dimensions_are_a_table(models, beir, tmp_path):
    result, _ = evaluate(
        tmp_path / "out",
        [models["one"]],
        [beir],
        precisions=["int8", "binary"],
        dimensions=[16],
    )
    assert result.state == "succeeded", result.end_reason
    found = report(tmp_path / "out")["precisions"]["one"]["beir"]
    shape = [
        (item["precision"], item["dimension"], item["bytes_per_vector"], item["rescored"]) for item in found
    ]
    assert shape == [
        ("float32", 32, 128, False),
        ("int8", 32, 32, False),
        ("binary", 32, 4, True),
        ("binary", 32, 4, False),
        ("float32", 16, 64, False),
        ("int8", 16, 16, False),
        ("binary", 16, 2, True),
        ("binary", 16, 2, False),
    ]
    assert found[0]["scores"] == report(tmp_path / "out")["scores"]["one"]["beir"]
    assert found[1]["scores"]["ndcg@10"] == pytest.approx(found[0]["scores"]["ndcg@10"], abs=0.03)
    assert "data-bytes" in (tmp_path / "out" / "report" / "report.html").read_text()


def test_a_foreign_run_is_reranked(models, beir, tmp_path):
    run = tmp_path / "theirs.trec"
    run.write_text("".join(f"q{n} Q0 d{2 * n + k} {k + 1} {9 - k} them\n" for n in range(26) for k in (0, 1)))
    result, _ = evaluate(
        tmp_path / "out",
        [models["reranker"]],
        [{"ref": f"file:{beir}", "run": f"file:{run}"}],
        latency_queries=2,
    )
    assert result.state == "succeeded", result.end_reason
    found = report(tmp_path / "out")
    assert found["candidates"]["beir"]["recall@10"] == 1.0
    assert found["scores"]["reranker"]["beir"]["recall@10"] == 1.0
    assert set(found["latency_ms"]["reranker"]["beir"]) == {"rerank", "total"}
    lines = (tmp_path / "out" / "run" / "beir" / "reranker.trec").read_text().splitlines()
    assert len(lines) == 52


def test_several_datasets_have_a_mean_and_names_of_their_own(models, beir, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"query": f"a {w}", "positive": f"the {w}"}) + "\n" for w in WORDS))
    result, events = evaluate(
        tmp_path / "out",
        [models["one"], models["other"]],
        [beir, rows, {"ref": f"file:{rows}", "name": "again"}],
    )
    assert result.state == "succeeded", result.end_reason
    found = report(tmp_path / "out")
    assert list(found["datasets"]) == ["beir", "rows", "again"]
    assert found["mean"]["one"]["ndcg@10"] == pytest.approx(
        np.mean([scores["ndcg@10"] for scores in found["scores"]["one"].values()])
    )
    compared = [(item["dataset"], item["metric"]) for item in found["comparisons"]]
    assert ("all datasets", "ndcg@10") in compared
    assert len(compared) == 4 * len(METRICS)
    names = {name for data in of(events, EventType.METRIC) for name in data["values"]}
    assert "one/beir/ndcg@10" in names
    lines = (tmp_path / "out" / "report" / "queries.jsonl").read_text().splitlines()
    assert len(lines) == 3 * len(WORDS)


class StopAfterRankings(RecordingReporter):
    """Asks to stop when so many rankings have been told of."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.stop, self._left = StopSignal(), count

    def emit(self, event) -> None:
        super().emit(event)
        if event.type is EventType.METRIC:
            self._left -= 1
            if not self._left:
                self.stop.request("cancel")


def test_a_stopped_job_does_not_rank_again_what_it_has(models, beir, tmp_path, monkeypatch):
    asked = []

    def counted(score):
        def counting(pairs):
            asked.append(len(pairs))
            return score(pairs)

        return counting

    from core.families.cross_encoder import evaluator

    real = evaluator.score_with
    monkeypatch.setattr(evaluator, "score_with", lambda *some: counted(real(*some)))
    order = [models["reranker"], models["one"]]
    result, _ = evaluate(tmp_path / "out", order, [beir], reporter=StopAfterRankings(1))
    assert result.state == "cancelled"
    before = sum(asked)
    assert before > 0
    result, _ = evaluate(tmp_path / "out", order, [beir])
    assert result.state == "succeeded", result.end_reason
    assert sum(asked) == before
    evaluate(tmp_path / "whole", order, [beir])
    assert report(tmp_path / "out")["scores"] == report(tmp_path / "whole")["scores"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"dimensions": [64]}, "has 32 dimensions"),
        ({"models": ["file:MISSING"]}, "there is no such folder"),
        ({"models": [{"ref": "file:ONE", "prune_embeddings": {}}]}, "is dense: prune_embeddings"),
        ({"models": [{"ref": "file:ONE", "family": "cross_encoder"}]}, "no cross-encoder"),
        ({"models": [{"ref": "file:ONE", "family": "late_interaction"}]}, "no late-interaction model"),
    ],
)
def test_what_cannot_be_is_said(models, beir, tmp_path, fields, sentence):
    text = json.dumps(fields).replace("ONE", str(models["one"])).replace("MISSING", str(tmp_path / "missing"))
    asked = {"models": [f"file:{models['one']}"], **json.loads(text)}
    result, _ = evaluate(tmp_path / "out", asked.pop("models"), [beir], **asked)
    assert result.state == "failed"
    assert sentence in result.end_reason.message


def test_two_seeds_are_no_difference_and_a_broken_model_is_worse(models, tmp_path):
    words = [f"{one} {other}" for number, one in enumerate(WORDS) for other in WORDS[number + 1 : number + 4]]
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(
            json.dumps({"query": f"what is {two}", "positive": f"the {two} of it"}) + "\n" for two in words
        )
    )
    recipe = {
        "kind": "train",
        "base_model": f"file:{models['one']}",
        "dataset": f"file:{rows}",
        "max_steps": 15,
        "batch_size": 16,
        "learning_rate": 1e-3,
    }
    for name, change in (("first", {"seed": 1}), ("second", {"seed": 2}), ("broken", {"learning_rate": 5.0})):
        result = run_local({**recipe, **change}, tmp_path / name, RecordingReporter())
        assert result.state == "succeeded", result.end_reason
    result, _ = evaluate(
        tmp_path / "out",
        [
            *({"ref": f"file:{tmp_path / name / 'model'}", "name": name} for name in ("second", "broken")),
            {"ref": f"file:{tmp_path / 'first' / 'model'}", "name": "first"},
        ],
        [rows],
        metrics=["ndcg@10"],
    )
    assert result.state == "succeeded", result.end_reason
    outcomes = {item["model"]: item["outcome"] for item in report(tmp_path / "out")["comparisons"]}
    assert outcomes == {"second": "no difference", "broken": "worse"}


def test_bright_has_categories_and_leaves_out_what_it_must(models, tmp_path):
    folder = tmp_path / "bright"
    for name in ("documents", "examples"):
        (folder / name).mkdir(parents=True)
    for domain, words in (("biology", WORDS[:6]), ("robotics", WORDS[6:9])):
        documents = [{"id": f"{w}.txt", "content": f"the {w} of {w}"} for w in words]
        documents += [{"id": f"same-{w}", "content": f"a {w}"} for w in words]
        examples = [
            {
                "query": f"a {w}",
                "reasoning": "",
                "id": str(number),
                "excluded_ids": [f"same-{w}"] if number else ["N/A"],
                "gold_ids": [f"{w}.txt"],
                "gold_ids_long": ["N/A"],
            }
            for number, w in enumerate(words)
        ]
        for name, lines in (("documents", documents), ("examples", examples)):
            (folder / name / f"{domain}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    result, _ = evaluate(
        tmp_path / "out",
        ["bm25", models["one"]],
        [folder, {"ref": f"file:{folder}", "split": "robotics", "name": "robotics"}],
        metrics=["triplet_accuracy", "ndcg@10"],
    )
    assert result.state == "succeeded", result.end_reason
    found = report(tmp_path / "out")
    assert found["leading"] == "ndcg@10"  # nothing is judged irrelevant: there are no triplets
    categories = found["categories"]["bm25"]["bright"]
    assert {name: values["queries"] for name, values in categories.items()} == {"biology": 6, "robotics": 3}
    whole = found["scores"]["bm25"]["bright"]["ndcg@10"]
    assert whole == pytest.approx(
        (6 * categories["biology"]["ndcg@10"] + 3 * categories["robotics"]["ndcg@10"]) / 9
    )
    lines = [
        line.split() for line in (tmp_path / "out" / "run" / "robotics" / "one.trec").read_text().splitlines()
    ]
    ranked = {(query, document) for query, _, document, *_ in lines}
    assert ("0", f"same-{WORDS[6]}") in ranked
    assert ("1", f"same-{WORDS[7]}") not in ranked
    assert "bright by category" in (tmp_path / "out" / "report" / "report.md").read_text()


def test_metrics_that_no_dataset_has_are_refused_or_told(models, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"query": f"a {w}", "positive": f"the {w}"}) + "\n" for w in WORDS))
    result, _ = evaluate(tmp_path / "out", ["bm25"], [rows], metrics=["margin"])
    assert result.state == "failed"
    assert "no dataset has any" in result.end_reason.message
    result, events = evaluate(tmp_path / "both", ["bm25"], [rows], metrics=["margin", "ndcg@10"])
    assert result.state == "succeeded", result.end_reason
    told = [data["message"] for data in of(events, EventType.NOTICE)]
    assert "rows: nothing is judged irrelevant, so there is no margin." in told


@pytest.mark.parametrize(("first", "chosen"), [("one", "one"), ("broken", "base")])
def test_the_better_model_is_published(models, beir, tmp_path, broken, first, chosen):
    """A trained model that is no better than its base is not the one to use."""
    trained, base = (models["one"], broken) if first == "one" else (broken, models["one"])
    result, _ = evaluate(
        tmp_path / "out",
        [{"ref": f"file:{trained}", "name": first}, {"ref": f"file:{base}", "name": "base"}],
        [beir],
        publish_best=True,
    )
    assert result.state == "succeeded", result.end_reason
    wanted = trained if chosen == first else base
    for file in wanted.rglob("*.safetensors"):
        assert (tmp_path / "out" / "model" / file.relative_to(wanted)).read_bytes() == file.read_bytes()
    manifest = json.loads((tmp_path / "out" / "model" / "manifest.json").read_text())
    assert manifest["metadata"]["name"] == chosen
    assert json.loads((tmp_path / "out" / "model" / "chosen.json").read_text())["chosen_from"] == [
        first,
        "base",
    ]
    [verdict] = json.loads((tmp_path / "out" / "report" / "manifest.json").read_text())["metadata"][
        "verdicts"
    ]
    assert (verdict["model"], verdict["outcome"]) == (first, "better" if chosen == first else "worse")
    SentenceTransformer(str(tmp_path / "out" / "model"), device="cpu")


@pytest.mark.parametrize(
    ("first", "promote", "chosen"),
    [
        ("better", "if_better", "better"),
        ("same", "if_better", "base"),
        ("same", "if_not_worse", "same"),
        ("worse", "if_not_worse", "base"),
    ],
)
def test_what_is_promoted(models, beir, tmp_path, broken, first, promote, chosen):
    good = models["one"]
    trained, base = {"better": (good, broken), "same": (good, good), "worse": (broken, good)}[first]
    result, events = evaluate(
        tmp_path / "out",
        [{"ref": f"file:{trained}", "name": first}, {"ref": f"file:{base}", "name": "base"}],
        [beir],
        publish_best=True,
        promote=promote,
        name="search",
    )
    assert result.state == "succeeded", result.end_reason
    manifest = json.loads((tmp_path / "out" / "model" / "manifest.json").read_text())
    assert manifest["metadata"]["promoted"] is (chosen != "base")
    assert manifest["metadata"]["name"] == chosen
    # In a file as well: equal files share one manifest in the storage.
    assert json.loads((tmp_path / "out" / "model" / "chosen.json").read_text())["promoted"] is (
        chosen != "base"
    )
    told = [data["message"] for data in of(events, EventType.NOTICE)]
    said = "search@current" if chosen != "base" else "nothing is promoted"
    assert any(said in line for line in told)


@pytest.mark.parametrize("others", [[], ["bm25"]])
def test_the_better_model_needs_two_models(models, beir, others):
    with pytest.raises(InvalidRequest, match="publish_best needs at least two models"):
        parse_spec(
            {
                "kind": "evaluate",
                "models": [f"file:{models['one']}", *others],
                "datasets": [f"file:{beir}"],
                "publish_best": True,
            }
        )
