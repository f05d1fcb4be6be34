"""Mine jobs: what comes out is what brute force says, without answers, and a stop loses no shard."""

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from core.errors import InvalidRequest
from core.jobs.events import EventType
from core.process.local import run_local
from core.retrieval import encode as encode_room
from core.runtime.context import StopSignal
from core.runtime.reporter import RecordingReporter
from core.spec import parse_spec
from tests.data.running import prepare, write
from tests.mining.running import FREE, made, mine, page
from tests.tiny import WORDS

REPOSITORY = Path(__file__).parents[2]


def test_the_nearest_are_those_of_brute_force(rows_file, tiny_model, tmp_path):
    result = mine(
        tmp_path / "out",
        f"file:{rows_file}",
        f"file:{tiny_model}",
        num_negatives=6,
        filters={**FREE, "same_group": True},
    )
    assert result.state == "succeeded", result.end_reason
    found = made(tmp_path / "out")
    model = SentenceTransformer(str(tiny_model), device="cpu")
    lines = [json.loads(line) for line in rows_file.read_text().splitlines()]
    documents = [line["positive"] for line in lines]
    queries = model.encode([line["query"] for line in lines], normalize_embeddings=True)
    scores = queries @ model.encode(documents, normalize_embeddings=True).T
    for number, row in enumerate(found):
        own = scores[number].copy()
        own[number] = -np.inf
        best = np.argsort(-own, kind="stable")[:6]
        assert np.allclose(row["scores"][1:], own[best], atol=1e-5)
        assert np.allclose(row["scores"][0], scores[number, number], atol=1e-5)
        assert row["ranks"] == list(range(6))
        assert set(row["negatives"]) == {documents[place] for place in best}
    mining = page(tmp_path / "out")["mining"]
    assert (mining["queries"], mining["corpus"], mining["similarity"]) == (26, 26, "cosine")
    assert len(mining["weights_sha256"]) == 64


@pytest.mark.parametrize("model", ["bm25", "tiny"])
def test_no_answer_and_nothing_of_its_group_is_a_negative(rows_file, tiny_model, tmp_path, model):
    lines = [json.loads(line) for line in rows_file.read_text().splitlines()]
    # A second answer, and one that repeats the first but for case.
    lines.append({"query": lines[0]["query"], "positive": "another answer altogether"})
    lines.append({"query": "some other query", "positive": lines[0]["positive"].upper()})
    # The same question in other letters has another answer.
    lines.append({"query": f"{lines[1]['query'].upper()}?", "positive": "an answer to the same question"})
    write(rows_file, lines)
    chosen = "bm25" if model == "bm25" else f"file:{tiny_model}"
    result = mine(
        tmp_path / "out", f"file:{rows_file}", chosen, num_negatives=20, filters={"positive_aware": None}
    )
    assert result.state == "succeeded", result.end_reason
    answers: dict[str, set[str]] = {}
    for line in lines:
        answers.setdefault(line["query"].lower().strip("?"), set()).add(line["positive"].lower())
    group = {line["positive"]: line.get("group") for line in lines}
    for row in made(tmp_path / "out"):
        assert not {text.lower() for text in row["negatives"]} & answers[row["query"].lower().strip("?")]
        assert row["group"] is None or row["group"] not in {group[text] for text in row["negatives"]}
        assert (
            len(set(row["negatives"])) == len(row["negatives"]) == len(row["ranks"]) == len(row["difficulty"])
        )


def test_short_rows_stay_and_are_counted(rows_file, tiny_model, tmp_path):
    result = mine(tmp_path / "out", f"file:{rows_file}", f"file:{tiny_model}", filters={"max_score": -1.0})
    assert result.state == "succeeded", result.end_reason
    assert page(tmp_path / "out")["rows_by_negatives"] == {"0": 26}
    assert all(row["negatives"] == [] for row in made(tmp_path / "out"))


def test_a_job_that_was_stopped_encodes_no_shard_again(rows_file, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(encode_room, "SHARD", 4)
    monkeypatch.setattr("core.mining.finders.dense.SHARD", 4)
    spec = {"kind": "mine", "dataset": f"file:{rows_file}", "model": f"file:{tiny_model}", "filters": FREE}
    stop, written = StopSignal(), []
    original = encode_room.whole_file

    @contextlib.contextmanager
    def write_and_stop(path):
        with original(path) as file:
            yield file
        written.append(path.name)
        if len(written) == 3:
            stop.request("cancel")

    monkeypatch.setattr(encode_room, "whole_file", write_and_stop)
    result = run_local(spec, tmp_path / "out", RecordingReporter(), stop=stop)
    assert result.state == "cancelled"
    result = run_local(spec, tmp_path / "out", RecordingReporter())
    assert result.state == "succeeded", result.end_reason
    assert len(written) == len(set(written)) == 7 + 7
    whole = run_local(spec, tmp_path / "whole", RecordingReporter())
    assert whole.state == "succeeded"
    assert made(tmp_path / "out") == made(tmp_path / "whole")


def test_a_job_that_was_killed_encodes_no_shard_again(rows_file, tiny_model, tmp_path, monkeypatch):
    spec = {"kind": "mine", "dataset": f"file:{rows_file}", "model": f"file:{tiny_model}", "filters": FREE}
    program = f"""
import contextlib, os, signal
from pathlib import Path
from core.retrieval import encode
from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
encode.SHARD = 4
original, written = encode.whole_file, []
@contextlib.contextmanager
def write_and_die(path):
    with original(path) as file:
        yield file
        if len(written) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    written.append(path)
encode.whole_file = write_and_die
run_local({spec!r}, Path({str(tmp_path / "out")!r}), RecordingReporter())
"""
    killed = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    monkeypatch.setattr(encode_room, "SHARD", 4)
    monkeypatch.setattr("core.mining.finders.dense.SHARD", 4)
    written = []
    original = encode_room.whole_file
    monkeypatch.setattr(encode_room, "whole_file", lambda path: written.append(path) or original(path))
    reporter = RecordingReporter()
    result = run_local(spec, tmp_path / "out", reporter)
    assert result.state == "succeeded", result.end_reason
    # Seven shards of documents and seven of queries: three were there, the half one was not.
    assert len(written) == len(set(written)) == 7 + 7 - 3
    told = [event.data.message for event in reporter.events if event.type == EventType.NOTICE]
    assert any("12 of 26 documents had been encoded before" in text for text in told)


def test_a_corpus_of_its_own(rows_file, tiny_model, tmp_path):
    corpus = write(
        tmp_path / "corpus.jsonl",
        [{"_id": f"c{n}", "text": f"{word} is far away"} for n, word in enumerate(WORDS)],
    )
    result = mine(
        tmp_path / "out", f"file:{rows_file}", f"file:{tiny_model}", corpus=f"file:{corpus}", filters=FREE
    )
    assert result.state == "succeeded", result.end_reason
    for row in made(tmp_path / "out"):
        assert len(row["negatives"]) == 4
        assert all(text.endswith("is far away") for text in row["negatives"])
        assert all(name.startswith("c") for name in row["negative_ids"])


def test_a_prepared_dataset_keeps_its_other_splits_and_licence_and_trains(rows_file, tiny_model, tmp_path):
    assert (
        prepare(tmp_path / "data", f"file:{rows_file}", split={"test": 0.25}, licence="CC0").state
        == "succeeded"
    )
    dataset = f"file:{tmp_path / 'data' / 'dataset'}"
    result = mine(tmp_path / "out", dataset, f"file:{tiny_model}", filters=FREE)
    assert result.state == "succeeded", result.end_reason
    before = json.loads((tmp_path / "data" / "dataset" / "dataset.json").read_text())
    assert page(tmp_path / "out")["splits"] == {name: rows for name, rows in before["splits"].items() if rows}
    assert page(tmp_path / "out")["licence"] == "CC0"
    assert (tmp_path / "out" / "report" / "scores.png").read_bytes().startswith(b"\x89PNG")
    mined = f"file:{tmp_path / 'out' / 'dataset'}"
    trained = run_local(
        {
            "kind": "train",
            "base_model": f"file:{tiny_model}",
            "dataset": mined,
            "batch_size": 4,
            "evaluation": {"datasets": [mined], "metrics": ["mrr@10"]},
            "curriculum": {"epochs": [["hard"]]},
        },
        tmp_path / "model",
        RecordingReporter(),
    )
    assert trained.state == "succeeded", trained.end_reason


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"filters": {"range_min": 10, "range_max": 5}}, "filters"),
        ({"filters": {"positive_aware": 1.5}}, "filters.positive_aware"),
        ({"num_negatives": 0}, "num_negatives"),
        ({"sampling": "best"}, "sampling"),
        ({"model": "not a model"}, "model"),
    ],
)
def test_a_fault_is_named_by_its_path(change, path):
    with pytest.raises(InvalidRequest) as caught:
        parse_spec({"kind": "mine", "dataset": "file:x", **change})
    assert any(problem.path.startswith(path) for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize("named", [True, False])
def test_a_text_of_several_pages_is_of_all_their_groups(tiny_model, tmp_path, named):
    """The positive stands on pages A and B; the row means B."""
    page = {"document": "A"} if named else {}
    corpus = [{"_id": "a1", "text": "river and bridge", **page}]
    corpus += [
        {"_id": f"{name}{number}", "text": f"river {word}", **({"document": name} if named else {})}
        for name in "ABC"
        for number, word in enumerate(WORDS["ABC".index(name) * 5 :][:5])
    ]
    corpus.append({"_id": "b9", "text": "river and bridge", **({"document": "B"} if named else {})})
    rows = [{"query": "what of river", "positive": "river and bridge", "group": "B"}]
    rows += [
        {"query": f"q {row['text']}", "positive": row["text"], "group": row["_id"][0]} for row in corpus[1:-1]
    ]
    dataset = write(tmp_path / "rows.jsonl", rows)
    result = mine(
        tmp_path / "out",
        f"file:{dataset}",
        f"file:{tiny_model}",
        corpus=f"file:{write(tmp_path / 'corpus.jsonl', corpus)}",
        num_negatives=20,
        filters=FREE,
    )
    assert result.state == "succeeded", result.end_reason
    first, *others = made(tmp_path / "out")
    assert {name[0] for name in first["negative_ids"]} == {"A", "C"}
    for row in others:
        of_page = {name[0] for name in row["negative_ids"] if name[0].isupper()}
        assert row["group"] not in of_page
        assert of_page >= set("ABC") - {row["group"]}


def test_a_judged_set_is_mined_from_its_whole_corpus(tiny_model, tmp_path):
    folder = tmp_path / "judged"
    (folder / "qrels").mkdir(parents=True)
    write(
        folder / "corpus.jsonl",
        [{"_id": f"d{n}", "title": "", "text": f"{word} is"} for n, word in enumerate(WORDS)],
    )
    write(folder / "queries.jsonl", [{"_id": "q1", "text": "what is river"}])
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td0\t1\n")
    dataset = {"ref": f"file:{folder}", "split": "train"}
    result = mine(tmp_path / "out", dataset, f"file:{tiny_model}", filters=FREE)
    assert result.state == "succeeded", result.end_reason
    assert page(tmp_path / "out")["mining"]["corpus"] == len(WORDS)
    assert len(made(tmp_path / "out")[0]["negatives"]) == 4


def test_negatives_do_not_repeat_each_other(tiny_model, tmp_path):
    long = " ".join(WORDS)
    corpus = [
        {"_id": "one", "text": long},
        {"_id": "two", "text": f"{long} ."},
        {"_id": "three", "text": long.upper()},
    ]
    corpus += [{"_id": word, "text": f"{word} alone"} for word in WORDS[:3]]
    rows = write(tmp_path / "rows.jsonl", [{"query": "what is it", "positive": "nothing of this"}])
    result = mine(
        tmp_path / "out",
        f"file:{rows}",
        f"file:{tiny_model}",
        corpus=f"file:{write(tmp_path / 'corpus.jsonl', corpus)}",
        num_negatives=6,
        filters={"positive_aware": None},
    )
    assert result.state == "succeeded", result.end_reason
    [row] = made(tmp_path / "out")
    assert len(row["negatives"]) == 4
    assert len({"one", "two", "three"} & set(row["negative_ids"])) == 1
    assert page(tmp_path / "out")["mining"]["removed"]["repeats another"] == 2


def test_names_of_negatives_that_are_known_are_kept(tiny_model, tmp_path):
    lines = [
        {
            "query": f"what is {word}",
            "positive": word,
            "positive_id": f"p{n}",
            "negatives": [f"no {word}"],
            "negative_ids": [f"n{n}"],
        }
        for n, word in enumerate(WORDS[:6])
    ]
    result = mine(
        tmp_path / "out",
        f"file:{write(tmp_path / 'rows.jsonl', lines)}",
        f"file:{tiny_model}",
        num_negatives=11,
        filters=FREE,
    )
    assert result.state == "succeeded", result.end_reason
    for n, row in enumerate(made(tmp_path / "out")):
        assert set(row["negative_ids"]) == {f"{kind}{k}" for kind in "pn" for k in range(6)} - {f"p{n}"}


def test_what_means_nothing_is_refused(tiny_model):
    for fields, name in (
        ({"model": "bm25", "max_length": 64}, "max_length"),
        ({"model": "bm25", "prompts": {"query": "q: "}}, "prompts"),
        ({"family": "late_interaction", "precision": "bf16"}, "precision"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            parse_spec({"kind": "mine", "dataset": "file:x", "model": f"file:{tiny_model}", **fields})
        assert f"{name} has no effect with" in caught.value.problems[0].message
