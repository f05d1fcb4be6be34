"""Nearly the same is found, and nothing else is."""

import random

from core.data.near_duplicates import NearDuplicates
from tests.data.test_prepare import facts, prepare, rows, write

VOCABULARY = [f"word{number}" for number in range(400)]


def texts(count: int, length: int = 80) -> list[list[str]]:
    drawn = random.Random(0)
    return [drawn.choices(VOCABULARY, k=length) for _ in range(count)]


def test_changed_words_are_found_up_to_the_threshold():
    known = NearDuplicates(0.8)
    originals = texts(50)
    for number, words in enumerate(originals):
        assert known.add(" ".join(words)) == [number]
    for number, words in enumerate(originals):
        little = [*words[:-1], "other"]  # one run of 78 differs
        much = [word if place % 4 else "other" for place, word in enumerate(words)]
        assert number in known.add(" ".join(little))
        assert number not in known.add(" ".join(much))


def test_case_punctuation_and_space_make_no_other_text():
    known = NearDuplicates(0.9)
    assert known.add("What is a river?") == [0]
    assert known.add("what  is a RIVER") == [0]
    assert known.add("what is a hill") == [1]
    assert known.add("???") == [2]
    assert known.add("!") == [3]


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
