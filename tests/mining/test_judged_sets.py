"""Mining on judged sets: what a ranking leaves out is no negative, and every script has words."""

import json
from pathlib import Path

import pytest

from core.jobs.events import EventType
from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
from tests.data.judged_sets import write_set
from tests.data.running import prepare
from tests.mining.running import FREE, made, page
from tests.tiny import WORDS
from tests.training.running import of

COUNT = 6


def mine(out: Path, dataset, model="bm25", **fields):
    reporter = RecordingReporter()
    spec = {"kind": "mine", "dataset": dataset, "model": model, "filters": FREE, "num_negatives": 3, **fields}
    result = run_local(spec, out, reporter)
    assert result.state == "succeeded", result.end_reason
    return [data["message"] for data in of(reporter.events, EventType.NOTICE)]


def arguments(folder: Path, *, same_text: bool = True) -> Path:
    queries = [(f"c{n}", f"{word} or {WORDS[n + 8]}") for n, word in enumerate(WORDS[:COUNT])]
    own = queries if same_text else [(name, f"on the {text} of others") for name, text in queries]
    answers = [(f"k{n}", f"a {word} is no {WORDS[n + 8]}") for n, word in enumerate(WORDS[:COUNT])]
    qrels = [(f"c{n}", f"k{n}", 1) for n in range(COUNT)]
    return write_set(folder, [*own, *answers], queries, qrels, split="train")


def owns(out: Path) -> int:
    """Rows that have their query's own document among the negatives."""
    return sum(row["query_id"] in row["negative_ids"] for row in made(out))


@pytest.mark.parametrize("shape", ["folder", "prepared_set", "prepared_rows"])
def test_a_query_is_no_negative_of_itself(tmp_path, shape):
    source = arguments(tmp_path / "set")
    if shape != "folder":
        task = {"prepared_set": "retrieval", "prepared_rows": "triplets"}[shape]
        result = prepare(tmp_path / "prepared", f"file:{source}", task=task)
        assert result.state == "succeeded", result.end_reason
    corpus = {"corpus": f"file:{source}"} if shape == "prepared_rows" else {}
    dataset = source if shape == "folder" else tmp_path / "prepared" / "dataset"
    told = mine(tmp_path / "out", f"file:{dataset}", **corpus)
    assert owns(tmp_path / "out") == 0
    assert any("left out of their own ranking" in sentence for sentence in told)


def test_the_setting_and_the_texts_decide(tmp_path, tiny_model):
    same, other = arguments(tmp_path / "same"), arguments(tmp_path / "other", same_text=False)
    model = f"file:{tiny_model}"
    mine(tmp_path / "kept", {"ref": f"file:{same}", "identical_ids": "keep"}, model, num_negatives=11)
    assert owns(tmp_path / "kept") == COUNT
    told = mine(tmp_path / "auto", f"file:{other}", model, num_negatives=11)
    assert owns(tmp_path / "auto") == COUNT
    assert any("which stays in their ranking" in sentence for sentence in told)
    mine(tmp_path / "excluded", {"ref": f"file:{other}", "identical_ids": "exclude"}, model, num_negatives=11)
    assert owns(tmp_path / "excluded") == 0


def bright(folder: Path) -> Path:
    """Two domains with the same ids; each query excludes the document on its word."""
    for part in ("documents", "examples"):
        (folder / part).mkdir(parents=True)
    for domain, words in (("biology", WORDS[:3]), ("robotics", WORDS[3:6])):
        documents = [{"id": f"gold-{n}", "content": f"the {w} of {w}"} for n, w in enumerate(words)]
        documents += [{"id": f"same-{n}", "content": f"a {w} in {w}"} for n, w in enumerate(words)]
        examples = [
            {"id": str(n), "query": f"a {w}", "excluded_ids": [f"same-{n}"], "gold_ids": [f"gold-{n}"]}
            for n, w in enumerate(words)
        ]
        for part, lines in (("documents", documents), ("examples", examples)):
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / part / f"{domain}.jsonl").write_text(text)
    return folder


@pytest.mark.parametrize("prepared", [False, True], ids=["folder", "prepared"])
def test_excluded_ids_are_no_negatives(tmp_path, tiny_model, prepared):
    source, dataset = bright(tmp_path / "bright"), {"ref": f"file:{tmp_path / 'bright'}"}
    if prepared:
        result = prepare(tmp_path / "prepared", f"file:{source}", task="retrieval")
        assert result.state == "succeeded", result.end_reason
        dataset = {"ref": f"file:{tmp_path / 'prepared' / 'dataset'}", "split": "test"}
    mine(tmp_path / "out", dataset, f"file:{tiny_model}", num_negatives=10)
    rows = made(tmp_path / "out", "test" if prepared else "train")
    assert len(rows) == 6
    for row in rows:
        word = row["query"].removeprefix("a ")
        assert len(row["negatives"]) == 10
        assert f"a {word} in {word}" not in row["negatives"]


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        ("an anchor", "documents with the id and the text of an earlier one: 1 (d1)"),
        ("a violin", "documents with the id of an earlier one, but another text: 1 (d1)"),
    ],
)
def test_a_document_that_comes_twice_is_told(tmp_path, second, sentence):
    corpus = tmp_path / "corpus.jsonl"
    lines = [("d1", "an anchor"), ("d2", "a basket"), ("d1", second)]
    corpus.write_text("".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in lines))
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"query": "an anchor or a basket", "positive": "a tunnel"}) + "\n")
    told = mine(tmp_path / "out", f"file:{rows}", corpus=f"file:{corpus}")
    assert any(sentence in message for message in told)


@pytest.mark.parametrize(
    ("query", "positive", "negatives"),
    [
        pytest.param("天气怎么样", "今天天气很好", ["明天天气不好", "天气预报"], id="chinese"),
        pytest.param("ตลาดหุ้น", "ตลาดหุ้นตก", ["ตลาดหุ้นขึ้น"], id="thai"),
        pytest.param("c", "c", ["b c"], id="single_letters"),
        pytest.param("??? !!!", "!!!", ["???"], id="punctuation"),
    ],
)
def test_bm25_mines_in_every_script(tmp_path, query, positive, negatives):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"query": query, "positive": positive, "negatives": negatives}) + "\n")
    mine(tmp_path / "out", f"file:{rows}")
    [row] = made(tmp_path / "out")
    assert sorted(row["negatives"]) == sorted(negatives)
    assert "version" in page(tmp_path / "out")["mining"]["tokenizer"]


def test_bm25_without_any_token_mines_nothing_and_says_so(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"query": "a river", "positive": "川", "negatives": ["山", "…"]}\n')
    told = mine(tmp_path / "out", f"file:{rows}", keep_own="never")
    assert [row["negatives"] for row in made(tmp_path / "out")] == [[]]
    assert any("1 have none" in sentence for sentence in told)
