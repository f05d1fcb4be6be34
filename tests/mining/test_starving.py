"""Filters that remove nearly everything: negatives come by rank, or the job says why there are none."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from core.errors import InvalidRequest
from core.jobs.events import EventType
from core.ranking.negatives.filters import TOO_NEAR, filter_candidates, in_turn
from core.ranking.negatives.starvation import CHECKED, Tally
from core.runtime.reporter import RecordingReporter
from core.spec import parse_spec
from core.spec.parts.filters import Fallback, RankFilters
from tests.data.running import write
from tests.mining.running import made, mine, page
from tests.tiny import WORDS, make_cross_encoder

DOCUMENTS = np.arange(30)
CLOSE = 0.99 - DOCUMENTS / 1000  # nearest first, all within 0.03


def kept(positive: float, *, corpus: int | None = 300, removed: Counter | None = None, **asked):
    answers = DOCUMENTS == 0
    counts = Counter() if removed is None else removed
    return filter_candidates(
        DOCUMENTS, CLOSE, answers, [positive], RankFilters(**asked), counts, corpus=corpus
    )


# -- one query -----------------------------------------------------------------------------------------


def test_close_scores_leave_nothing_below_the_bar():
    removed: Counter[str] = Counter()
    assert len(kept(0.985, corpus=None, removed=removed).documents) == 0
    assert removed[TOO_NEAR] == 29


def test_by_rank_come_those_below_the_positive_behind_the_nearest():
    found = kept(0.975)
    assert found.documents.tolist() == list(range(16, 30))  # 0.975 itself is document 15
    assert found.by_rank.all()
    assert found.ranks.tolist() == list(range(15, 29))  # document 0 is an answer and has no rank
    assert kept(0.99).documents.tolist() == list(range(11, 30))  # never of the nearest ten
    assert kept(0.99, fallback={"range_min": 3}).documents.tolist() == list(range(4, 30))
    assert kept(0.99, corpus=30).documents.tolist() == list(range(4, 30))  # of few documents a tenth


def test_a_positive_below_all_of_them_leaves_the_deeper_half():
    found = kept(0.5, range_max=28)
    assert found.ranks.tolist() == list(range(14, 28))


def test_an_absolute_bar_and_the_ranks_hold_for_the_fallback_too():
    assert kept(0.99, max_score=0.97).scores.max() <= 0.97
    assert kept(0.99, range_max=15).ranks.max() == 14
    assert kept(0.99, min_score=0.98).scores.size == 0
    assert kept(0.99, fallback=None).documents.size == 0


@pytest.mark.parametrize("sampling", ["top", "random"])
def test_what_the_bar_allows_comes_first(sampling):
    # A bar of 0.968, so that the last few are below it.
    found = kept(0.978, positive_aware=0.99)
    below = ~found.by_rank
    assert 0 < below.sum() < len(below)
    turn = in_turn(found, sampling, (1, 2))
    assert below[turn[: below.sum()]].all()
    preferred = found.documents % 2 == 0
    turn = in_turn(found, sampling, (1, 2), preferred)
    marks = [(bool(found.by_rank[place]), not preferred[place]) for place in turn]
    assert marks == sorted(marks)


# -- shares --------------------------------------------------------------------------------------------


def test_shares_are_of_what_reaches_a_filter():
    tally = Tally(Counter({"answers": 50, "min_score": 10, TOO_NEAR: 30, CHECKED: 3}), left=10, checked=4)
    assert tally.share("answers") == 0.5
    assert tally.share("min_score") == pytest.approx(0.2)
    assert tally.share(TOO_NEAR) == 0.75
    assert tally.share(CHECKED) == 0.75
    assert tally.starved(RankFilters())
    assert not tally.starved(RankFilters(max_filtered_share=0.8))
    told = tally.warnings(RankFilters(), np.array([0.9, 0.8]), np.array([0.7]), 5)
    assert len(told) == 2
    for words in ("positive_aware 0.95", "75%", "(median 0.850)", "5 queries have negatives by rank"):
        assert words in told[0]
    assert told[1].startswith("Filter cross-encoder removes 75%")
    assert Tally().warnings(RankFilters(), np.empty(0), np.empty(0), 0) == []


# -- jobs ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def close(tmp_path_factory, tiny_model) -> Path:
    """A model whose vectors all lie close together."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense

    model = SentenceTransformer(str(tiny_model), device="cpu")
    shift = Dense(32, 32, activation_function=torch.nn.Identity())
    with torch.no_grad():
        shift.linear.weight.copy_(torch.eye(32))
        shift.linear.bias.fill_(8.0)
    model.append(shift)
    folder = tmp_path_factory.mktemp("models") / "close"
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def near_copies(count: int) -> list[dict]:
    """Rows whose positives stand several times in the corpus, with a word changed."""
    drawn = np.random.default_rng(3)
    lines = []
    for number in range(count):
        words = [*drawn.choice(WORDS, 30), str(number)]
        query = f"what is {WORDS[number % len(WORDS)]} {number}"
        text = " ".join(words)
        lines.append({"query": query, "positive": text, "copies": [f"{text} {word}" for word in WORDS[:3]]})
    return lines


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[place : place + 3]) for place in range(len(words) - 2)}


def test_a_model_with_close_scores_still_mines_safe_negatives(close, tmp_path):
    lines = near_copies(80)
    rows = write(tmp_path / "rows.jsonl", [{k: line[k] for k in ("query", "positive")} for line in lines])
    texts = [text for line in lines for text in (line["positive"], *line["copies"])]
    corpus = write(tmp_path / "corpus.jsonl", [{"id": str(n), "text": text} for n, text in enumerate(texts)])
    reporter = RecordingReporter()
    result = mine(
        tmp_path / "out", f"file:{rows}", f"file:{close}", corpus=f"file:{corpus}", reporter=reporter
    )
    assert result.state == "succeeded", result.end_reason
    found = made(tmp_path / "out")
    assert np.mean([len(row["negatives"]) >= 2 for row in found]) >= 0.9
    for row in found:
        own = shingles(row["positive"])
        for text in row["negatives"]:
            assert len(own & shingles(text)) / len(own | shingles(text)) < 0.9
    [told] = [
        event.data.message
        for event in reporter.events
        if event.type is EventType.NOTICE and event.data.message.startswith("The bar")
    ]
    assert "removes 100% of the candidates" in told
    assert "have negatives by rank instead" in told
    mining = page(tmp_path / "out")["mining"]
    assert mining["queries_by_rank"] == 80
    assert mining["negatives_by_rank"] == sum(len(row["negatives"]) for row in found)
    report = (tmp_path / "out" / "report" / "report.md").read_text()
    assert "taken by their rank" in report
    # Without the fallback they stay without, and are told of as well.
    reporter = RecordingReporter()
    options = {"corpus": f"file:{corpus}", "filters": {"fallback": None}, "reporter": reporter}
    assert mine(tmp_path / "none", f"file:{rows}", f"file:{close}", **options).state == "succeeded"
    assert not any(row["negatives"] for row in made(tmp_path / "none"))
    assert any("removes 100%" in str(event.data) for event in reporter.events)


def own_rows(tmp_path: Path) -> Path:
    lines = [
        {
            "query": f"what is {word}",
            "positive": f"{word} is this and {WORDS[(number + 3) % 20]}",
            "negatives": [
                f"own of {word}",
                f"also of {word}",
                f"{word} is this and {WORDS[(number + 3) % 20]}",
            ],
            "difficulty": ["medium", "hard", "easy"],
        }
        for number, word in enumerate(WORDS)
    ]
    return write(tmp_path / "rows.jsonl", lines)


@pytest.mark.parametrize("keep_own", ["auto", "always", "never"])
def test_what_becomes_of_the_rows_own_negatives(keep_own, tiny_model, tmp_path):
    corpus = write(tmp_path / "corpus.jsonl", [{"text": f"{word} and {word}"} for word in WORDS[:3]])
    result = mine(
        tmp_path / "out",
        f"file:{own_rows(tmp_path)}",
        f"file:{tiny_model}",
        corpus=f"file:{corpus}",
        keep_own=keep_own,
        num_negatives=4,
        filters={"positive_aware": None, "near_duplicates": None},
    )
    assert result.state == "succeeded", result.end_reason
    mining = page(tmp_path / "out")["mining"]
    for number, row in enumerate(made(tmp_path / "out")):
        own = [f"own of {WORDS[number]}", f"also of {WORDS[number]}"]  # not the one that is the positive
        mined = [text for text in row["negatives"] if text not in own]
        assert len(mined) == 3  # all of the corpus
        expected = {"auto": [*mined, own[0]], "always": [*own, *mined], "never": mined}[keep_own]
        assert row["negatives"] == expected
        assert row["ranks"] == [-1 if text in own else mined.index(text) for text in expected]
        level = dict(zip(own, ["medium", "hard"], strict=True))
        assert [level.get(text) for text in own if text in expected] == [
            row["difficulty"][expected.index(text)] for text in own if text in expected
        ]
        # The miner knows nothing of them: half of a scale is none.
        assert len(row["scores"]) == (4 if keep_own == "never" else 0)
    assert mining["rows_with_own"] == (0 if keep_own == "never" else len(WORDS))


def test_own_negatives_have_the_teachers_scores(tiny_model, tmp_path):
    cross = make_cross_encoder(tmp_path / "cross", tiny_model)
    corpus = write(tmp_path / "corpus.jsonl", [{"text": f"{word} and {word}"} for word in WORDS[:3]])
    check = {"model": f"file:{cross}", "positive_aware": None, "keep_scores": True}
    result = mine(
        tmp_path / "out",
        f"file:{own_rows(tmp_path)}",
        f"file:{tiny_model}",
        corpus=f"file:{corpus}",
        keep_own="always",
        filters={"positive_aware": None, "near_duplicates": None, "cross_encoder": check},
    )
    assert result.state == "succeeded", result.end_reason
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(cross), device="cpu")
    for row in made(tmp_path / "out")[:5]:
        texts = [row["positive"], *row["negatives"]]
        assert len(row["scores"]) == len(texts)
        expected = model.predict([(row["query"], text) for text in texts], show_progress_bar=False)
        assert np.allclose(row["scores"], expected, atol=1e-4)


def test_the_cross_encoder_has_the_last_word_on_own_negatives_too(tiny_model, tmp_path):
    cross = make_cross_encoder(tmp_path / "cross", tiny_model)
    corpus = write(tmp_path / "corpus.jsonl", [{"text": f"{word} and {word}"} for word in WORDS[:3]])
    kept = {}
    for name, share in (("strict", 0.9), ("free", None)):
        check = {"model": f"file:{cross}", "positive_aware": share, "keep_scores": True}
        options = {"positive_aware": None, "near_duplicates": None, "cross_encoder": check}
        dataset, model = f"file:{own_rows(tmp_path)}", f"file:{tiny_model}"
        out = tmp_path / name
        done = mine(out, dataset, model, corpus=f"file:{corpus}", keep_own="always", filters=options)
        assert done.state == "succeeded", done.end_reason
        kept[name] = sum(rank == -1 for row in made(out) for rank in row["ranks"])
    for row in made(tmp_path / "strict"):
        positive, *negatives = row["scores"] or [0.0]
        assert all(score <= positive - 0.1 * abs(positive) + 1e-6 for score in negatives)
    assert 0 < kept["strict"] < kept["free"] == 2 * len(WORDS)


def test_answers_behind_the_last_rank_are_in_nobodys_way():
    counts: Counter[str] = Counter()
    filter_candidates(DOCUMENTS, CLOSE, DOCUMENTS >= 10, [2.0], RankFilters(range_max=10), counts)
    assert counts["answers"] == 0
    filter_candidates(DOCUMENTS, CLOSE, DOCUMENTS >= 9, [2.0], RankFilters(range_max=10), counts)
    assert counts["answers"] == 21


def test_a_fallback_has_no_room_for_a_typo():
    with pytest.raises(InvalidRequest):
        parse_spec({"kind": "mine", "dataset": "file:/x", "filters": {"fallback": {"range_mim": 3}}})
    assert Fallback().range_min == 10
    assert json.loads(RankFilters().model_dump_json())["max_filtered_share"] == 0.5
