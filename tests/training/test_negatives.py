"""Curriculum and resampling: which negatives an epoch trains on, and that nothing of it is lost by a stop."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from core.data.training_rows.table import SCHEMA
from core.engine.batching import RowRef, TrainingBatches
from core.engine.token_table import TokenTable, tokens_of_table
from core.errors import InvalidRequest
from core.spec import parse_spec
from core.spec.train import Prompts
from core.training import trainer as trainer_room
from core.training.negatives.choice import ChosenNegatives
from tests.tiny import WORDS
from tests.training.running import StopAt, run, weights

LEVELS = ["easy", "easy", "medium", "hard", "hard", "hard", "other"]


@pytest.fixture(scope="module")
def table(tiny_model, tmp_path_factory) -> TokenTable:
    rows = [
        {
            "query": f"{WORDS[n]} ?",
            "positive": WORDS[n],
            "negatives": [f"{WORDS[n]} {WORDS[k]}" for k in range(7)],
            "scores": [9.0, *range(7)],
            "difficulty": LEVELS if n != 3 else [],
        }
        for n in range(10, 16)
    ]
    rows[3]["negatives"] = rows[3]["scores"] = rows[3]["difficulty"] = []
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    arrow = pa.Table.from_pylist(rows, schema=SCHEMA)
    folder, _ = tokens_of_table(
        arrow, "x", tokenizer, Prompts(), context=16, cache=tmp_path_factory.mktemp("cache")
    )
    return TokenTable(folder)


def levels_of(chosen: np.ndarray) -> list[str]:
    return [LEVELS[number] for number in chosen.tolist()]


def test_an_epoch_trains_on_its_levels(table):
    chosen = ChosenNegatives(table, [{"easy"}, {"easy", "medium"}, {"hard"}], None, None, seed=1)
    assert [sorted(set(levels_of(chosen.of(0, epoch)))) for epoch in range(5)] == [
        ["easy"],
        ["easy", "medium"],
        ["hard"],
        ["hard"],
        ["hard"],
    ]
    assert len(chosen.of(0, 0)) == 2
    assert len(chosen.of(3, 0)) == 0
    row = chosen[RowRef(0, epoch=2)]
    assert len(row.documents) == 4
    assert row.scores == [9.0, 3.0, 4.0, 5.0]
    assert len(chosen[RowRef(3)].documents) == 1
    assert 1 < chosen.documents_per_row < 4


@given(count=st.integers(1, 9), seed=st.integers(0, 50), row=st.sampled_from([0, 1, 2, 4]))
@settings(max_examples=60)
def test_none_comes_again_before_all_have_come(table, count, seed, row):
    chosen = ChosenNegatives(table, None, count, None, seed)
    seen: list[int] = []
    for epoch in range(12):
        found = chosen.of(row, epoch).tolist()
        assert len(found) == min(count, 7)
        assert len(set(found)) == len(found)
        seen += found
        times = np.bincount(seen, minlength=7)
        assert times.max() - times.min() <= 1
    assert chosen.of(row, 3).tolist() == ChosenNegatives(table, None, count, None, seed).of(row, 3).tolist()


@given(count=st.integers(1, 3), most=st.integers(1, 2), seed=st.integers(0, 50))
@settings(max_examples=40)
def test_with_caps_too_all_of_a_level_come_before_one_comes_again(table, count, most, seed):
    chosen = ChosenNegatives(table, [{"easy", "hard"}], count, most, seed)
    times = np.zeros(7, int)
    for epoch in range(20):
        times[chosen.of(0, epoch)] += 1
        for level in ("easy", "hard"):
            of_level = [number for number, name in enumerate(LEVELS) if name == level]
            assert times[of_level].max() - times[of_level].min() <= 1
    assert (times[[0, 1, 3, 4, 5]] > 0).all()


def test_caps_of_a_level(table):
    chosen = ChosenNegatives(table, None, 4, 1, seed=3)
    for epoch in range(6):
        found = [level for level in levels_of(chosen.of(1, epoch)) if level != "other"]
        assert sorted(found) == ["easy", "hard", "medium"]


def test_batches_know_their_epoch():
    keys = [(2 * row, 2 * row + 1) for row in range(10)]
    batches = list(TrainingBatches(keys, 4, 7, 3))
    assert [{ref.epoch for ref in batch} for batch in batches] == [{0}] * 3 + [{1}] * 3 + [{2}] * 3


@pytest.fixture
def spec(tiny_model, tmp_path) -> dict:
    path = tmp_path / "triplets.jsonl"
    lines = [
        {
            "query": f"what is {word}",
            "positive": f"{word} is this {number}",
            "negatives": [f"{WORDS[(number + k) % 20]} is that {k}" for k in range(1, 7)],
            "difficulty": ["easy", "easy", "medium", "medium", "hard", "hard"],
        }
        for number, word in enumerate(WORDS)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {
        "kind": "train",
        "base_model": f"file:{tiny_model}",
        "dataset": f"file:{path}",
        "batch_size": 8,
        "learning_rate": 2e-3,
        "epochs": 3,
        "curriculum": {},
        "resample": {"negatives": 1},
    }


def documents_of(spec: dict, out: Path, monkeypatch) -> list[int]:
    """Texts of each batch that is trained on."""
    seen: list[int] = []
    original = trainer_room.encode_micro_batches

    def watch(model, texts, **options):
        seen.append(len(texts.positions))
        return original(model, texts, **options)

    monkeypatch.setattr(trainer_room, "encode_micro_batches", watch)
    result, _ = run(spec, out)
    assert result.state == "succeeded", result.end_reason
    return seen


def test_training_sees_the_chosen_ones_alone(spec, tmp_path, monkeypatch):
    with_one = documents_of(spec, tmp_path / "one", monkeypatch)
    assert sum(with_one) == 3 * 3 * len(WORDS)  # query, positive, one negative
    spec["resample"] = None
    with_level = documents_of(spec, tmp_path / "level", monkeypatch)
    assert sum(with_level) == 3 * 4 * len(WORDS)
    spec["curriculum"] = None
    assert sum(documents_of(spec, tmp_path / "all", monkeypatch)) == 3 * 8 * len(WORDS)


@pytest.mark.parametrize("stop_at", [2, 7])
def test_a_stop_loses_nothing_of_it(spec, tmp_path, stop_at):
    run(spec, tmp_path / "whole")
    reporter = StopAt(stop_at)
    run(spec, tmp_path / "parts", reporter=reporter, stop=reporter.stop)
    result, _ = run(spec, tmp_path / "parts")
    assert result.state == "succeeded", result.end_reason
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_curriculum_without_difficulties_is_refused(spec, pairs_file, tmp_path):
    result, _ = run({**spec, "dataset": f"file:{pairs_file}"}, tmp_path / "out")
    assert result.end_reason.code == "bad_data"
    assert "column difficulty" in result.end_reason.message


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"curriculum": {"epochs": [["hrad"]]}}, "curriculum.epochs"),
        ({"curriculum": {"epochs": []}}, "curriculum.epochs"),
        ({"resample": {"negatives": -1}}, "resample.negatives"),
    ],
)
def test_faults_have_paths(spec, change, path):
    with pytest.raises(InvalidRequest) as caught:
        parse_spec({**spec, **change})
    assert any(problem.path.startswith(path) for problem in caught.value.problems)
