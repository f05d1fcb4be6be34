"""Nearly the same is found, and nothing else is."""

import random
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data.dedup.near_duplicates import Sketches
from tests.data.running import facts, prepare, rows, write

VOCABULARY = [f"word{number}" for number in range(400)]


def texts(count: int, length: int = 80) -> list[list[str]]:
    drawn = random.Random(0)
    return [drawn.choices(VOCABULARY, k=length) for _ in range(count)]


def near(folder, lines: list[str], threshold: float, at_once: int = 1000) -> tuple[list[int], set]:
    sketches = Sketches(folder, "texts", threshold)
    for start in range(0, len(lines), at_once):
        sketches.add(lines[start : start + at_once])
    same_as, pairs = sketches.near()
    return same_as.tolist(), {tuple(pair) for pair in pairs.tolist()}


def test_changed_words_are_found_up_to_the_threshold(tmp_path):
    originals = texts(50)
    little = [[*words[:-1], "other"] for words in originals]  # one run of 78 differs
    much = [[word if place % 4 else "other" for place, word in enumerate(words)] for words in originals]
    lines = [" ".join(words) for words in [*originals, *little, *much]]
    same_as, pairs = near(tmp_path, lines, 0.8)
    assert same_as == list(range(150))
    assert pairs == {(number, number + 50) for number in range(50)}


@given(at_once=st.integers(1, 40), seed=st.integers(0, 20))
@settings(max_examples=25)
def test_pairs_are_those_that_comparing_all_with_all_finds(at_once, seed):
    drawn = random.Random(seed)
    bases = [drawn.choices(VOCABULARY, k=drawn.choice([4, 30, 700])) for _ in range(6)]
    lines = []
    for _ in range(30):
        words = list(drawn.choice(bases))
        for _ in range(drawn.choice([0, 0, 1, 3])):
            words[drawn.randrange(len(words))] = drawn.choice(VOCABULARY)
        lines.append(" ".join(words))
    with tempfile.TemporaryDirectory() as folder:
        same_as, pairs = near(Path(folder), lines, 0.9, at_once)
    runs = [
        {" ".join(line.split()[place : place + 3]) for place in range(len(line.split()) - 2)}
        for line in lines
    ]
    assert same_as == [lines.index(line) for line in lines]
    expected = {
        (one, two)
        for one in range(30)
        for two in range(one + 1, 30)
        if same_as[one] == one
        and same_as[two] == two
        and len(runs[one] & runs[two]) / len(runs[one] | runs[two]) >= 0.9
    }
    # Texts of more than 512 runs are measured by their smallest hashes alone, which may err a little.
    short = {pair for pair in pairs | expected if all(len(runs[text]) <= 256 for text in pair)}
    assert pairs & short == expected & short


def test_case_punctuation_and_space_make_no_other_text(tmp_path):
    lines = ["What is a river?", "what  is a RIVER", "what is a hill", "???", "!", "What is a river?"]
    assert near(tmp_path, lines, 0.9) == ([0, 0, 2, 3, 4, 0], set())


def test_thousands_that_say_nearly_the_same_are_found_without_comparing_all(tmp_path):
    [words] = texts(1, 200)
    lines = [" ".join([*words, f"number{number}"]) for number in range(3000)]
    same_as, pairs = near(tmp_path, lines, 0.9)
    assert same_as == list(range(3000))
    assert len(pairs) < 200 * 3000
    linked = np.arange(3000)
    for one, two in sorted(pairs):
        linked[two] = min(linked[two], linked[one])
    assert set(linked.tolist()) == {0}


def test_no_near_duplicate_crosses_the_splits(tmp_path):
    drawn = random.Random(1)
    lines = []
    for number, words in enumerate(texts(120)):
        lines.append({"query": f"query {number} of one", "positive": " ".join(words)})
        changed = list(words)
        changed[drawn.randrange(len(words))] = "other"
        lines.append({"query": f"another question {number}", "positive": " ".join(changed)})
    drawn.shuffle(lines)
    source = write(tmp_path / "rows.jsonl", lines)
    assert prepare(tmp_path / "out", f"file:{source}", split={"dev": 0.2, "test": 0.3}).state == "succeeded"
    assert facts(tmp_path / "out")["splits"] == {"train": 120, "dev": 48, "test": 72}
    where = {}
    for split in ("train", "dev", "test"):
        for row in rows(tmp_path / "out", split):
            where.setdefault(
                row["query"].removeprefix("query ").removesuffix(" of one").split()[-1], set()
            ).add(split)
    assert len(where) == 120
    assert all(len(splits) == 1 for splits in where.values())
    # Not by accident: without looking for them they do cross.
    assert (
        prepare(
            tmp_path / "blind", f"file:{source}", split={"dev": 0.2, "test": 0.3}, dedup={"near": None}
        ).state
        == "succeeded"
    )
    blind = {
        row["query"].removeprefix("query ").removesuffix(" of one").split()[-1]
        for row in rows(tmp_path / "blind")
    }
    assert len(blind) > facts(tmp_path / "blind")["splits"]["train"] / 2


def test_a_row_that_says_nearly_the_same_is_left_out(tmp_path):
    [words] = texts(1)
    lines = [
        {"query": "what is it?", "positive": " ".join(words)},
        {"query": "What is it", "positive": " ".join([*words[:-1], "other"])},
        {"query": "who is it", "positive": " ".join(words)},
    ]
    source = write(tmp_path / "rows.jsonl", lines)
    assert prepare(tmp_path / "out", f"file:{source}").state == "succeeded"
    assert facts(tmp_path / "out")["left_out"] == {"nearly said before": 1}
    assert [row["query"] for row in rows(tmp_path / "out")] == ["what is it?", "who is it"]


def test_scripts_without_spaces(tmp_path):
    drawn = random.Random(5)
    lines = []
    for _ in range(40):
        text = "".join(chr(drawn.randrange(0x4E00, 0x9FA0)) for _ in range(60))
        lines += [text, text[:-1] + "\u4e00"]
    _, pairs = near(tmp_path, lines, 0.9)
    assert pairs == {(number, number + 1) for number in range(0, 80, 2)}


def test_low_thresholds_miss_nothing(tmp_path):
    originals = texts(150, 62)
    halves = [
        [*words[:42], *(f"other{place}" for place in range(20))] for words in originals
    ]  # 40 of 80 runs
    _, pairs = near(tmp_path, [" ".join(words) for words in [*originals, *halves]], 0.5)
    assert pairs == {(number, number + 150) for number in range(150)}


def test_the_order_of_the_rows_changes_no_split(tmp_path):
    drawn = random.Random(3)
    lines = []
    for number, words in enumerate(texts(100)):
        lines.append({"query": f"query number {number} of these", "positive": " ".join(words)})
        lines.append(
            {"query": f"query number {number} of these", "positive": " ".join([*words[:-1], "other"])}
        )
    where = []
    for name in ("one", "two"):
        source = write(tmp_path / f"{name}.jsonl", lines)
        assert (
            prepare(tmp_path / name, f"file:{source}", split={"dev": 0.1, "test": 0.2}).state == "succeeded"
        )
        splits = {split: {row["query"] for row in rows(tmp_path / name, split)} for split in ("dev", "test")}
        assert facts(tmp_path / name)["left_out"] == {"nearly said before": 100}
        where.append(splits)
        drawn.shuffle(lines)
    assert where[0] == where[1]
