"""Mining while training: it finds what brute force finds, and nothing of it is lost by a stop."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from sentence_transformers import SentenceTransformer

from core.data.training_rows.table import SCHEMA
from core.engine.batching import Packing, RowRef, TrainingBatches
from core.engine.token_table import TokenTable, tokens_of_table
from core.engine.tokens import Frame
from core.errors import InvalidRequest
from core.families import dense
from core.process.local import run_local
from core.runtime.context import StopSignal
from core.spec import parse_spec
from core.spec.parts.training import Remine
from core.spec.train import Prompts
from core.training.negatives import remining as room
from core.training.negatives import search as negative_search
from core.training.negatives.mined_dataset import MinedNegatives, answers_of, file_of
from core.training.negatives.search import KnownAnswers, Texts, find_negatives
from tests.faults.service import until
from tests.tiny import WORDS, make_model
from tests.training.processes import helpers
from tests.training.running import StopAt, equal, run, same_losses, warnings, weights

PROMPTS = Prompts(query="what is: ")


def lines(count: int, first: int = 0) -> list[dict]:
    """Every fifth query has two positives; some rows have negatives of their own."""
    drawn = np.random.default_rng(first)
    found = []
    for number in range(first, first + count):
        query = f"{WORDS[number % len(WORDS)]} {number if number % 5 else number - 5}"
        positive = f"{number} " + " ".join(drawn.choice(WORDS, drawn.integers(1, 12)))
        found.append({"query": query, "positive": positive, "negatives": ["one for all"] * (number % 3 == 0)})
    return found


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return lines(40)


@pytest.fixture(scope="module")
def model(tiny_model) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_model), device="cpu").eval()


@pytest.fixture(scope="module")
def table(rows, model, tmp_path_factory) -> TokenTable:
    arrow = pa.Table.from_pylist([{"scores": [], "difficulty": [], **row} for row in rows], schema=SCHEMA)
    cache = tmp_path_factory.mktemp("cache")
    folder, _ = tokens_of_table(arrow, "x", model.tokenizer, PROMPTS, context=64, cache=cache)
    return TokenTable(folder)


def mine(table, model, sizes, tmp_path, **asked):
    texts = Texts(table, sizes, Frame.of(model.tokenizer), 64, 64)
    embed = dense.make_embed(model, Packing(256), lambda: None)
    remine, scratch = Remine(**asked), tmp_path / ".v.npy"
    answers = KnownAnswers(table, remine, tmp_path)
    found = find_negatives(texts, embed, remine, (1, 2), scratch, "cpu", lambda: None, answers)
    assert not list(tmp_path.iterdir())
    return found


@pytest.mark.parametrize("across", [False, True])
def test_what_is_found_is_what_brute_force_finds(rows, table, model, tmp_path, monkeypatch, across):
    monkeypatch.setattr(negative_search, "_TEXTS", 7)
    sizes = [25, 15]
    options = {
        "num_negatives": 3,
        "filters": {"range_max": 12, "positive_aware": 0.9, "fallback": None},
        "keep_own": "never",
        "near_duplicates": None,
    }
    mined = mine(table, model, sizes, tmp_path, across_datasets=across, **options)
    starts, documents = mined.starts, mined.documents
    texts = [*dict.fromkeys(text for row in rows for text in (row["positive"], *row["negatives"]))]
    vectors = model.encode(texts, normalize_embeddings=True)
    answers: dict[str, set[str]] = {}
    for row in rows:
        answers.setdefault(row["query"], set()).add(row["positive"])
    for number, row in enumerate(rows):
        of_query = vectors @ model.encode(PROMPTS.query + row["query"], normalize_embeddings=True)
        score = dict(zip(texts, of_query.tolist(), strict=True))
        mine_from, mine_to = (0, 25) if number < 25 else (25, 40)
        own = rows if across else rows[mine_from:mine_to]
        there = {text for other in own for text in (other["positive"], *other["negatives"])}
        positives = [other["positive"] for other in own if other["query"] == row["query"]]
        bar = min(score[text] - 0.1 * abs(score[text]) for text in positives)
        able = sorted(there - answers[row["query"]], key=lambda text: -score[text])[:12]
        expected = [text for text in able if score[text] <= bar][:3]
        found = documents[starts[number] : starts[number + 1]]
        told = [model.tokenizer.decode(table._text(index)) for index in found]
        assert told == [
            model.tokenizer.decode(model.tokenizer(text, add_special_tokens=False)["input_ids"])
            for text in expected
        ]


@pytest.mark.parametrize("keep_own", ["auto", "always", "never"])
def test_what_becomes_of_the_rows_own_negatives(rows, table, model, tmp_path, keep_own):
    # No document is below the bar: nothing is mined.
    filters = {"max_score": -2.0, "positive_aware": None, "fallback": None}
    found = mine(table, model, [40], tmp_path, filters=filters, keep_own=keep_own)
    counts = np.diff(found.starts).tolist()
    assert counts == [len(row["negatives"]) if keep_own != "never" else 0 for row in rows]
    assert "max_score -2" in found.warnings[0]
    assert "removes 100%" in found.warnings[0]
    full = mine(table, model, [40], tmp_path, filters={"positive_aware": None}, keep_own=keep_own)
    assert max(np.diff(full.starts)) == (5 if keep_own == "always" else 4)


def test_a_bar_that_removes_all_leaves_ranks(table, model, tmp_path):
    # Below one thousandth of the positive's score is nothing.
    filters = {"positive_aware": 0.001, "range_max": 30}
    found = mine(table, model, [40], tmp_path, filters=filters, keep_own="never")
    assert (np.diff(found.starts) >= 2).mean() >= 0.9
    assert "negatives by rank instead" in found.warnings[0]
    answers = answers_of(table)
    for row, query in enumerate(table.numbers()[0].tolist()):
        assert not answers[query] & set(found.documents[found.starts[row] : found.starts[row + 1]].tolist())


def test_near_repetitions_of_an_answer_are_no_negatives(model, tmp_path):
    long = " ".join(WORDS)
    rows = [{"query": f"what is {word}", "positive": f"{word} {long}"} for word in WORDS[:6]]
    rows += [{"query": f"and {word}", "positive": f"{word} {word}"} for word in WORDS[6:20]]
    arrow = pa.Table.from_pylist(
        [{"scores": [], "difficulty": [], "negatives": [], **row} for row in rows], schema=SCHEMA
    )
    folder, _ = tokens_of_table(arrow, "y", model.tokenizer, PROMPTS, context=64, cache=tmp_path / "cache")
    near = TokenTable(folder)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    filters = {"positive_aware": None}
    repeating = set(near.numbers()[1][:6].tolist())
    for threshold, expected in (({"threshold": 0.8}, 0), (None, 6)):
        options = {"near_duplicates": threshold, "num_negatives": 19, "filters": filters}
        found = mine(near, model, [20], scratch, **options)
        of_first = found.documents[found.starts[0] : found.starts[1]].tolist()
        assert len(repeating & set(of_first)) == max(0, expected - 1)  # its own positive is an answer
        # And of those that repeat each other one is enough.
        of_last = found.documents[found.starts[19] : found.starts[20]].tolist()
        assert len(repeating & set(of_last)) == (1 if threshold else 6)


def test_documents_of_other_datasets_come_first(table, model, tmp_path):
    sizes = [25, 15]
    options = {"across_datasets": True, "filters": {"positive_aware": None}, "keep_own": "never"}
    found = mine(table, model, sizes, tmp_path, prefer="other_dataset", **options)
    _, documents, starts = table.numbers()
    first, second = set(documents[: starts[25]].tolist()), set(documents[starts[25] :].tolist())
    for row in range(40):
        negatives = set(found.documents[found.starts[row] : found.starts[row + 1]].tolist())
        assert not negatives & (first - second if row < 25 else second - first)
    with pytest.raises(ValueError, match="needs across_datasets"):
        Remine(prefer="other_dataset")


def test_faiss_finds_the_nearest(table, model, tmp_path):
    pytest.importorskip("faiss")
    options = {"filters": {"positive_aware": None}, "keep_own": "never"}
    exact = mine(table, model, [40], tmp_path, **options)
    faiss = mine(table, model, [40], tmp_path, index="faiss", batch_size=3, **options)
    # Of so few documents one list holds all.
    assert (exact.starts == faiss.starts).all()
    assert np.mean(exact.documents == faiss.documents) > 0.95


def test_what_meets_its_answer_in_a_batch_is_left_out(table, tmp_path):
    generator = np.random.default_rng(0)
    _, documents, starts = table.numbers()
    queries = table.numbers()[0]
    answers = answers_of(table)
    every = np.unique(documents)
    mined = [generator.choice(every, 6, replace=False) for _ in range(len(table))]
    np.savez(file_of(tmp_path, 1), starts=np.arange(len(table) + 1) * 6, documents=np.concatenate(mined))
    dataset = MinedNegatives(table, tmp_path, 6)
    for _ in range(20):
        batch = generator.choice(len(table), 8, replace=False).tolist()
        found = dataset.__getitems__([RowRef(row, generation=1) for row in batch])
        forbidden = set().union(*(answers[int(queries[row])] for row in batch))
        forbidden |= {int(documents[starts[row]]) for row in batch}
        seen: set[int] = set()
        for row, got in zip(batch, found, strict=True):
            expected = [number for number in mined[row].tolist() if number not in forbidden | seen]
            seen.update(expected)
            assert [list(ids) for ids in got.documents[1:]] == [
                list(table._text(number)) for number in expected
            ]
            assert list(got.documents[0]) == list(table._text(documents[starts[row]]))
    # Generation 0: the rows' own.
    assert len(dataset[RowRef(0)].documents) == 2
    assert len(dataset[RowRef(1)].documents) == 1


def test_a_generation_counts_from_its_batch_on():
    batches = TrainingBatches([(n, n + 100) for n in range(10)], 5, seed=0, epochs=4)
    plain = list(batches)
    batches.renew(3, 1)
    batches.renew(6, 2)
    generations = [{ref.generation for ref in batch} for batch in batches]
    assert generations == [{0}] * 3 + [{1}] * 3 + [{2}] * 2
    assert [[ref._replace(generation=0) for ref in batch] for batch in batches] == plain


@pytest.fixture
def spec(tiny_model, tmp_path) -> dict:
    path = tmp_path / "rows.jsonl"
    own = [
        {**line, "negatives": [f"{text} {line['query']}" for text in line["negatives"]]} for line in lines(60)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in own))
    return {
        "kind": "train",
        "base_model": f"file:{tiny_model}",
        "dataset": f"file:{path}",
        "batch_size": 10,
        "learning_rate": 2e-3,
        "epochs": 5,
        "logging_steps": 1,
        "remine": {"filters": {"positive_aware": None, "range_max": 20}, "num_negatives": 3},
        "resources": {"gpus": 0},
    }


def told(events) -> list[str]:
    return [
        event.data.message
        for event in events
        if event.type == "notice" and event.data.message.startswith("Negatives mined")
    ]


@pytest.fixture
def seen(monkeypatch) -> list[int]:
    """The generation of every batch that is looked up."""
    found: list[int] = []
    look = MinedNegatives.__getitems__

    def watch(self, refs):
        found.append(refs[0].generation)
        return look(self, refs)

    monkeypatch.setattr(MinedNegatives, "__getitems__", watch)
    return found


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("at_start", [True, False])
def test_every_epoch_gets_its_own(spec, tmp_path, seen, background, at_start):
    spec["remine"] |= {"background": background, "at_start": at_start}
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    first = ["step 0"] if at_start else []
    # Six batches an epoch. What is mined in the background counts one time later.
    assert [sentence.split(" in ")[0] for sentence in told(events)][: 4 + at_start] == [
        f"Negatives mined with the weights of {when}"
        for when in [*first, "step 6", "step 12", "step 18", "step 24"]
    ]
    start = 1 if at_start else 0
    expected = [start] * 9 + [2] * 6 + [3] * 6 + [4] * 6 + [5] * 3
    if background:
        expected = [start] * 15 + [2] * 6 + [3] * 6 + [4] * 3
    assert seen == expected


@pytest.mark.parametrize(("background", "stop_at"), [(False, 6), (False, 13), (True, 13), (True, 18)])
def test_a_stopped_job_goes_on_and_ends_bit_identical(spec, tmp_path, background, stop_at):
    spec["remine"]["background"] = background
    if stop_at == 13:
        spec["data_loader_workers"] = 1
    run(spec, tmp_path / "whole")
    reporter = StopAt(stop_at)
    stopped = run_local(spec, tmp_path / "out", reporter, stop=reporter.stop)
    assert stopped.state == "cancelled"
    result, _ = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "out")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_stop_while_it_mines_is_seen_and_nothing_is_lost(spec, tmp_path, monkeypatch):
    run(spec, tmp_path / "whole")
    stop, calls = StopSignal(), []
    find = room.find_negatives

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            stop.request("cancel")
        return find(*arguments)

    monkeypatch.setattr(room, "find_negatives", interrupted)
    from core.runtime.reporter import RecordingReporter

    stopped = run_local(spec, tmp_path / "out", RecordingReporter(), stop=stop)
    assert stopped.state == "cancelled"
    assert len(calls) == 3
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    assert told(events)[0].startswith("Negatives mined with the weights of step 12")
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "out")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_error_in_the_background_ends_the_job(spec, tmp_path, monkeypatch):
    spec["remine"]["background"] = True
    find = room.find_negatives

    def broken(texts, embed, asked, seed, *rest):
        if seed[1] == 3:
            raise ValueError("no such luck")
        return find(texts, embed, asked, seed, *rest)

    monkeypatch.setattr(room, "find_negatives", broken)
    result, _ = run(spec, tmp_path / "out")
    assert result.state == "failed"
    assert "no such luck" in result.end_reason.message


def test_two_processes_mine_as_one(spec, tmp_path):
    spec["base_model"] = f"file:{make_model(tmp_path / 'steady', dropout=0.0)}"
    spec["epochs"] = 3
    alone, expected = run(spec, tmp_path / "one")
    shared, events = run(spec, tmp_path / "two", processes=2)
    assert (alone.state, shared.state) == ("succeeded", "succeeded"), shared.end_reason
    assert same_losses(events, expected)
    equal(tmp_path / "one", tmp_path / "two")
    assert len(told(events)) == 3
    until(lambda: not helpers(), 10, "no helper is left")


@pytest.mark.parametrize(
    "change",
    [
        {"loss": {"guide": {"model": "GUIDE"}}},
        {"lora": {"r": 4}, "remine": {"background": True, "filters": {"positive_aware": None}}},
        {"gradient_accumulation_steps": 2, "loss": {"cached": True}},
        {"dataset": ["ROWS", "ROWS"], "remine": {"across_datasets": True}},
        {"remine": {"every_epochs": 0.17, "sampling": "random"}},
    ],
)
def test_it_goes_with_the_other_options(spec, tiny_model, tmp_path, change):
    text = json.dumps(change).replace("GUIDE", f"file:{tiny_model}").replace("ROWS", spec["dataset"])
    spec |= json.loads(text)
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    assert told(events)
    assert not [sentence for sentence in warnings(events) if "memory" in sentence]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"curriculum": {}}, "remine excludes curriculum"),
        ({"loss": {"name": "margin_mse"}}, "which negatives of remine do not have"),
        (
            {"lora": {}, "quantization": "int8", "remine": {"background": True}},
            "remine.background and quantization",
        ),
        ({"remine": {"filters": {"range_min": 9, "range_max": 3}}}, "range_min"),
    ],
)
def test_what_does_not_go_together_is_refused(spec, change, words):
    with pytest.raises(InvalidRequest) as caught:
        parse_spec({**spec, **change})
    assert words in caught.value.problems[0].message
