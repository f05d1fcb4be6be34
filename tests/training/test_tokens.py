"""Tokenized once: the same ids as the tokenizer's own, kept by content, used again."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from core.data.training_rows.table import SCHEMA
from core.engine import token_table as room
from core.engine.token_table import METADATA, TokenTable, tokens_of_table
from core.engine.tokens import Frame, fingerprint
from core.spec.parts.training import Lengths
from core.spec.train import Prompts
from core.training.lengths import choose_lengths
from tests.tiny import WORDS

ROWS = [
    {"query": WORDS[0], "positive": " ".join(WORDS), "negatives": [WORDS[1], WORDS[2]], "scores": [3, 2, 1]},
    {"query": WORDS[1], "positive": WORDS[0], "negatives": [], "scores": []},
    {"query": "", "positive": "unheard of " + WORDS[3], "negatives": [WORDS[1]], "scores": [1, 0.5]},
]


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def table() -> pa.Table:
    return pa.Table.from_pylist(ROWS, schema=SCHEMA)


def make(table, tokenizer, cache: Path, prompts: Prompts | None = None, name="rows") -> tuple[Path, bool]:
    return tokens_of_table(table, name, tokenizer, prompts or Prompts(), context=16, cache=cache)


@pytest.mark.parametrize("limit", [3, 7, 512])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_frame_cuts_as_the_tokenizer_does(tiny_model, limit, side):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model, truncation_side=side)
    frame = Frame.of(tokenizer)
    for text in (" ".join(WORDS), "river", ""):
        wanted = tokenizer(text, truncation=True, max_length=limit)["input_ids"]
        plain = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert frame.put(plain, limit).tolist() == wanted
    assert frame.specials == 2


def test_rows_come_back_with_their_ids_and_scores(table, tokenizer, tmp_path):
    found = TokenTable(make(table, tokenizer, tmp_path)[0])
    assert len(found) == 3
    for row, texts in zip((found.row(index) for index in range(3)), ROWS, strict=True):
        ids = tokenizer(
            [texts["query"], texts["positive"], *texts["negatives"]],
            add_special_tokens=False,
            truncation=True,
            max_length=16,
        )["input_ids"]
        assert [list(row.query), *(list(document) for document in row.documents)] == ids
        assert row.scores == (texts["scores"] or None)
    assert found.rows_without_scores == 1
    assert found.documents_per_row == 2
    first, second, third = found.keys()
    assert set(first) & set(second) == {*second}  # both of its texts stand in the first row as well
    assert len(first) == 4
    assert len(set(first) & set(third)) == 1


def test_a_text_is_kept_once_and_a_prompt_belongs_to_a_role(table, tokenizer, tmp_path):
    plain, prompted = (
        make(table, tokenizer, tmp_path, prompts)[0] for prompts in (Prompts(), Prompts(query="garden "))
    )
    assert plain != prompted
    texts = len(np.load(plain / "text_keys.npy"))
    assert texts == len({text for row in ROWS for text in (row["query"], row["positive"], *row["negatives"])})
    assert len(np.load(prompted / "text_keys.npy")) == texts + 2  # both words stand in both roles
    garden = tokenizer("garden", add_special_tokens=False)["input_ids"]
    assert list(TokenTable(prompted).row(0).query)[: len(garden)] == garden
    assert TokenTable(plain).keys() == TokenTable(prompted).keys()  # a prompt makes no text another one


def test_the_second_training_tokenizes_nothing(table, tokenizer, tmp_path, monkeypatch):
    folder, known = make(table, tokenizer, tmp_path)
    assert not known
    monkeypatch.setattr(room, "_write", lambda *_: pytest.fail("tokenized again"))
    assert make(table, tokenizer, tmp_path) == (folder, True)


def test_a_folder_of_tokens_says_what_it_holds(table, tokenizer, tmp_path):
    folder, _ = make(table, tokenizer, tmp_path)
    told = json.loads((folder / METADATA).read_text())
    lengths = {
        "query": [1, 1, 0],
        "positive": [16, 1, len(tokenizer(ROWS[2]["positive"], add_special_tokens=False)["input_ids"])],
        "negative": [1, 1, 1],
    }
    for role, tokens in lengths.items():
        assert told[f"avg_{role}_length"] == pytest.approx(np.mean(tokens), abs=0.01)
        assert told[f"p90_{role}_length"] == told[f"p95_{role}_length"] == max(tokens)
    assert (told["num_examples"], told["max_length"], told["padding"]) == (3, 16, "none")
    assert (told["num_proc"], told["batch_size"]) == (os.cpu_count(), room._ROWS)
    assert told["tokenizer"] == tokenizer.name_or_path
    assert told["tokenizer_sha256"] == fingerprint(tokenizer)


def test_lengths_may_be_measured_on_a_sample():
    counts = {"query": np.arange(1000), "document": np.arange(1000)}
    about = {
        "specials": {"query": 0, "document": 0},
        "configured": {"query": 4096, "document": 4096},
        "fixed": {},
        "context": 4096,
    }
    whole = choose_lengths(Lengths(percentile=0.5), counts, **about).query.max_length
    sampled = {
        choose_lengths(Lengths(percentile=0.5, sample=5), counts, **about, seed=seed).query.max_length
        for seed in range(8)
    }
    assert len(sampled) > 2
    assert choose_lengths(Lengths(percentile=0.5, sample=5000), counts, **about).query.max_length == whole
    twice = [choose_lengths(Lengths(sample=9), counts, **about, seed=3).query.max_length for _ in range(2)]
    assert twice[0] == twice[1]


def test_half_a_folder_is_made_anew(table, tokenizer, tmp_path):
    folder, _ = make(table, tokenizer, tmp_path)
    (folder / "ids.bin").write_bytes(b"")
    again, known = make(table, tokenizer, tmp_path)
    assert (again, known) == (folder, False)
    assert len(TokenTable(again).row(0).query) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["staging", "tokens"] or not any(
        (tmp_path / "staging").iterdir()
    )


def test_the_fingerprint_is_of_the_tokenizer_and_not_of_its_last_call(tiny_model, tokenizer):
    before = fingerprint(tokenizer)
    tokenizer(["river mountain"], truncation=True, max_length=3, padding=True)
    assert fingerprint(tokenizer) == before
    other = AutoTokenizer.from_pretrained(tiny_model)
    other.add_tokens(["brandnew"])
    assert fingerprint(other) != before


def test_the_least_recently_used_goes_first(table, tokenizer, tmp_path, monkeypatch):
    folders = [make(table, tokenizer, tmp_path, name=name)[0] for name in ("one", "two")]
    for age, folder in zip((10, 20), folders, strict=True):
        os.utime(folder, (age, age))
    make(table, tokenizer, tmp_path, name="one")  # used again: now the newest
    size = sum(file.stat().st_size for file in folders[0].iterdir())
    monkeypatch.setattr(room, "_KEPT_BYTES", 2 * size + size // 2)
    third, _ = make(table, tokenizer, tmp_path, name="three")
    assert folders[0].exists()
    assert not folders[1].exists()
    assert third.exists()


def test_parallelism_is_put_back(table, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    make(table, tokenizer, tmp_path)
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"


def test_lengths_are_measured_on_every_text():
    counts = {"query": np.full(100, 5), "document": np.r_[np.full(95, 30), np.full(5, 400)]}
    about = {
        "specials": {"query": 2, "document": 2},
        "configured": {"query": 256, "document": 256},
        "fixed": {},
        "context": 512,
    }
    found = choose_lengths(Lengths(), counts, **about)
    assert (found.query.max_length, found.query.mean, found.query.share_cut) == (8, 7.0, 0)
    assert found.document.max_length == 32
    assert (found.document.p90, found.document.longest, found.document.share_cut) == (32, 402, 0.05)
    whole = choose_lengths(Lengths(percentile=1.0), counts, **about)
    assert whole.document.max_length == 256  # no further than the model is set to


def test_which_end_is_cut_tells_tokenizers_apart(tiny_model):
    sides = {
        fingerprint(AutoTokenizer.from_pretrained(tiny_model, truncation_side=side))
        for side in ("left", "right")
    }
    assert len(sides) == 2


def test_another_job_that_was_faster_is_no_failure(table, tokenizer, tmp_path, monkeypatch):
    write = room._write

    def overtaken(*arguments):
        write(*arguments)
        monkeypatch.setattr(room, "_write", write)
        make(table, tokenizer, tmp_path)  # the same, by another

    monkeypatch.setattr(room, "_write", overtaken)
    folder, _ = make(table, tokenizer, tmp_path)
    assert len(TokenTable(folder)) == 3
