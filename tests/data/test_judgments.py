"""Judged sets as people have them: ids of both kinds, ids that come twice, judgments of what is missing."""

import json
from pathlib import Path

import pytest

from core.data.retrieval_sets.judged_folders import judged_pairs, read_judged
from core.data.retrieval_sets.own_documents import is_same_text
from core.data.rows.remarks import Irregularity, Remarks
from core.data.rows.row import Reject
from core.data.sources.retrieval import read_retrieval
from core.data.training_rows.pairs import Reading, read_pairs
from core.errors import BadData
from tests.conftest import SHARED
from tests.data.judged_sets import write_set
from tests.data.running import facts, prepare

CLAIMS = [
    "school uniforms make pupils equal before their teachers",
    "a tax on sugar helps the poor most of all",
    "zoos keep animals alive that have lost their forests",
    "cars should leave the inner city to people on foot",
]


def counter_set(folder: Path, texts=lambda claim: claim, gold_is_own: bool = False) -> Path:
    """Queries "c0"... whose id is that of a document, and "k0"..., which answer them."""
    corpus = [(f"c{n}", "A title of its own", texts(claim)) for n, claim in enumerate(CLAIMS)]
    corpus += [(f"k{n}", f"against that: {claim[::-1]}") for n, claim in enumerate(CLAIMS)]
    queries = [(f"c{n}", claim) for n, claim in enumerate(CLAIMS)]
    qrels = [(f"c{n}", f"{'c' if gold_is_own else 'k'}{n}", 1) for n in range(len(CLAIMS))]
    return write_set(folder, corpus, queries, qrels)


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param(lambda claim: claim, id="the_same_text"),
        pytest.param(lambda claim: claim.upper() + " !", id="case_and_punctuation"),
        pytest.param(lambda claim: f"  {claim}\n\n", id="white_space"),
        pytest.param(lambda claim: f"{claim} And here is why: {claim[::-1] * 9}", id="the_text_and_more"),
        pytest.param(lambda claim: claim.replace("a", "á", 1), id="a_letter_apart"),
    ],
)
def test_a_query_that_is_a_document_does_not_find_itself(tmp_path, texts):
    found = read_retrieval(counter_set(tmp_path, texts))
    assert found.excluded == {f"c{n}": {f"c{n}"} for n in range(len(CLAIMS))}
    assert found.remarks.count(Irregularity.OWN_DOCUMENT_EXCLUDED) == len(CLAIMS)
    told = found.coincidence
    assert (told.coinciding, told.same_text, told.excluded, told.relevant) == (4, 4, 4, 0)


def numbered_set(folder: Path, *, relevant_own: bool = False) -> Path:
    """Queries and documents that are merely both numbered from 1."""
    corpus = [(str(n), f"report {n} on {claim[::-1]}") for n, claim in enumerate(CLAIMS, 1)]
    queries = [(str(n), claim) for n, claim in enumerate(CLAIMS, 1)]
    qrels = [(str(n), str(n % len(CLAIMS) + 1), 1) for n in range(1, len(CLAIMS) + 1)]
    return write_set(folder, corpus, queries, [*qrels, ("1", "1", 2)] if relevant_own else qrels)


def test_numbers_that_coincide_mean_nothing(tmp_path):
    found = read_retrieval(numbered_set(tmp_path, relevant_own=True))
    assert found.excluded == {}
    assert found.remarks.count(Irregularity.OWN_DOCUMENT_KEPT) == 3
    assert found.remarks.examples(Irregularity.OWN_DOCUMENT_RELEVANT) == ["1"]
    told = [sentence for sentence, _ in found.remarks.sentences()]
    assert any("identical_ids: exclude leaves it out" in sentence for sentence in told)


@pytest.mark.parametrize(
    ("make", "setting", "excluded"),
    [
        pytest.param(numbered_set, "exclude", 4, id="excluded_as_BEIR_does"),
        pytest.param(counter_set, "keep", 0, id="kept_where_asked"),
    ],
)
def test_the_setting_decides_where_it_is_given(tmp_path, make, setting, excluded):
    found = read_retrieval(make(tmp_path), identical_ids=setting)
    assert sum(map(len, found.excluded.values())) == excluded == found.coincidence.excluded
    assert found.coincidence.setting == setting


@pytest.mark.parametrize("setting", ["auto", "exclude"])
def test_a_document_that_is_judged_relevant_always_stays(tmp_path, setting):
    found = read_retrieval(counter_set(tmp_path, gold_is_own=True), identical_ids=setting)
    assert found.excluded == {}
    assert found.remarks.count(Irregularity.OWN_DOCUMENT_RELEVANT) == len(CLAIMS)


def test_half_of_the_texts_decide_for_all(tmp_path):
    corpus = [(f"c{n}", CLAIMS[n] if n < 2 else "something else") for n in range(4)] + [("k", "answer")]
    queries = [(f"c{n}", claim) for n, claim in enumerate(CLAIMS)]
    folder = write_set(tmp_path, corpus, queries, [(f"c{n}", "k", 1) for n in range(4)])
    assert read_retrieval(folder).coincidence.excluded == 4
    corpus[1] = ("c1", "something else")
    write_set(tmp_path, corpus, queries, [(f"c{n}", "k", 1) for n in range(4)])
    assert read_retrieval(folder).coincidence.excluded == 0


def test_a_prepared_set_leaves_out_what_its_folder_does(tmp_path):
    folder = counter_set(tmp_path / "set")
    result = prepare(tmp_path / "out", f"file:{folder}", task="retrieval")
    assert result.state == "succeeded", result.end_reason
    found = read_retrieval(tmp_path / "out" / "dataset")
    assert found.excluded == read_retrieval(folder).excluded != {}


@pytest.mark.parametrize(
    ("query", "document", "same"),
    [
        ("what is a lease", "What is a lease?", True),
        ("what is a lease", "What is a lease\nA lease is a contract by which ...", True),  # its title
        ("what is a lease", "A title\nwhat is a lease", True),
        ("lease", "lease", True),
        ("lease", "The lease of a car is cheaper than its purchase", False),
        ("what is a lease", "what was the least", False),
        ("東京タワーの高さ", "東京タワーの高さ。", True),
        ("東京タワーの高さ", "京都の寺", False),
        ("...", "...", False),
        ("", "", False),
        ("cafe\u0301 au lait", "CAFÉ AU LAIT", True),
    ],
)
def test_when_two_texts_are_the_same(query, document, same):
    assert is_same_text(query, document) is same


# -- ids that come twice -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["beir", "msmarco", "trec"])
@pytest.mark.parametrize(
    ("second", "kind"),
    [
        pytest.param("first text", Irregularity.DOCUMENT_REPEATED, id="the_same_text"),
        pytest.param("second text", Irregularity.DOCUMENT_CONFLICT, id="another_text"),
    ],
)
def test_a_document_that_comes_twice_is_told(tmp_path, form, second, kind):
    corpus = [("d1", "first text"), ("d2", "other"), ("d1", second)]
    folder = write_set(tmp_path, corpus, [("q1", "a query")], [("q1", "d1", 1)], form=form)
    found = read_judged(folder, "test")
    assert found.corpus == {"d1": "first text", "d2": "other"}
    assert found.remarks.as_dict() == {kind.value: {"count": 1, "examples": ["d1"]}}
    # Training on it uses the same text, and knows of it.
    reading = Reading("test")
    assert [row.positive for row in read_pairs(folder, "test", reading)] == ["first text"]
    assert reading.report.remarks.count(kind) == 1


def test_bright_domains_may_use_an_id_each_but_not_twice(tmp_path):
    for part in ("documents", "examples"):
        (tmp_path / part).mkdir()
    for domain, texts in (("biology", ["cell", "cell"]), ("economics", ["market", "price"])):
        lines = [json.dumps({"id": "d.txt", "content": text}) for text in texts]
        (tmp_path / "documents" / f"{domain}.jsonl").write_text("\n".join(lines))
        example = {"id": "0", "query": "why", "excluded_ids": ["N/A"], "gold_ids": ["d.txt"]}
        (tmp_path / "examples" / f"{domain}.jsonl").write_text(json.dumps(example))
    found = read_retrieval(tmp_path)
    assert found.corpus == {"biology/d.txt": "cell", "economics/d.txt": "market"}
    assert found.remarks.count(Irregularity.DOCUMENT_REPEATED) == 1
    assert found.remarks.count(Irregularity.DOCUMENT_CONFLICT) == 1


def test_queries_and_judgments_that_come_twice_are_told(tmp_path):
    folder = write_set(
        tmp_path,
        [("d1", "one"), ("d2", "two")],
        [("q1", "first query"), ("q1", "second query"), ("q2", "x"), ("q2", "x")],
        [("q1", "d1", 2), ("q1", "d1", 0), ("q2", "d2", 1), ("q2", "d2", 1)],
    )
    found = read_retrieval(folder)
    assert (found.queries["q1"], found.qrels["q1"]) == ("first query", {"d1": 2})
    assert {kind: told["count"] for kind, told in found.remarks.as_dict().items()} == {
        "query_repeated": 1,
        "query_conflict": 1,
        "judgment_repeated": 1,
        "judgment_conflict": 1,
    }
    levels = {level for sentence, level in found.remarks.sentences() if "another" in sentence}
    assert levels == {"warning"}
    assert len(list(judged_pairs(folder, "test"))) == 2


def test_prepare_tells_of_ids_that_come_twice(tmp_path):
    corpus = [("d1", "first text"), ("d1", "second text"), ("d2", "other")]
    folder = write_set(tmp_path / "set", corpus, [("q1", "a query")], [("q1", "d1", 1), ("q1", "d1", 1)])
    result = prepare(tmp_path / "out", f"file:{folder}", task="retrieval")
    assert result.state == "succeeded", result.end_reason
    page = facts(tmp_path / "out")
    assert page["remarks"]["document_conflict"] == {"count": 1, "examples": ["d1"]}
    assert (page["documents"], page["splits"]) == (2, {"test": 1})
    assert read_retrieval(tmp_path / "out" / "dataset").corpus["d1"] == "first text"


# -- what is missing ---------------------------------------------------------------------------------

MISSING = [
    pytest.param([("q1", "gone", 1)], "test.tsv, line 3: judges document 'gone'", id="a_relevant_document"),
    pytest.param([("q1", "gone", 0)], "judges document 'gone', which is not in", id="an_irrelevant_document"),
    pytest.param([("q9", "d1", 1)], "judges query 'q9', which is not in", id="a_query"),
    pytest.param([("q9", "gone", 1), ("q2", "gone", 1)], "2 judgments name queries or documents", id="both"),
]


def missing_set(folder: Path, more) -> Path:
    queries = [("q1", "first"), ("q2", "second")]
    return write_set(folder, [("d1", "one"), ("d2", "two")], queries, [("q1", "d1", 1), *more])


@pytest.mark.parametrize(("more", "sentence"), MISSING)
def test_judgments_of_what_is_missing_fail_and_say_the_remedy(tmp_path, more, sentence):
    with pytest.raises(BadData, match=sentence) as caught:
        read_retrieval(missing_set(tmp_path, more))
    assert "on_missing: drop" in str(caught.value)


@pytest.mark.parametrize(
    ("more", "counts"),
    [
        pytest.param([("q1", "gone", 1)], {"document_missing": 1}, id="a_second_relevant_document"),
        pytest.param([("q1", "gone", 0)], {"document_missing": 1}, id="an_irrelevant_document"),
        pytest.param([("q9", "d1", 1), ("q9", "d2", 1)], {"query_missing": 1}, id="a_query"),
        pytest.param(
            [("q2", "gone", 1)], {"document_missing": 1, "query_without_relevant": 1}, id="the_only_relevant"
        ),
        pytest.param(
            [("q2", "gone", 1), ("q2", "lost", 2), ("q2", "d2", 0)],
            {"document_missing": 2, "query_without_relevant": 1},
            id="all_that_were_relevant",
        ),
    ],
)
def test_judgments_of_what_is_missing_are_dropped_and_counted(tmp_path, more, counts):
    found = read_retrieval(missing_set(tmp_path, more), on_missing="drop")
    assert {kind: told["count"] for kind, told in found.remarks.as_dict().items()} == counts
    assert (found.queries, found.qrels) == ({"q1": "first"}, {"q1": {"d1": 1}})


def test_a_set_that_loses_everything_is_refused(tmp_path):
    folder = write_set(tmp_path, [("d1", "one")], [("q1", "first")], [("q1", "gone", 1)])
    with pytest.raises(BadData, match="no relevant document for any query"):
        read_retrieval(folder, on_missing="drop")


def test_training_rows_refuse_judgments_of_what_is_missing_one_by_one(tmp_path):
    rows = list(read_pairs(missing_set(tmp_path, [("q2", "gone", 1)]), "test"))
    assert [isinstance(row, Reject) for row in rows] == [False, True]


def test_relevant_documents_that_are_excluded_are_told(tmp_path):
    for part in ("documents", "examples"):
        (tmp_path / part).mkdir()
    documents = [json.dumps({"id": f"d{n}", "content": f"text {n}"}) for n in range(2)]
    (tmp_path / "documents" / "biology.jsonl").write_text("\n".join(documents))
    example = {"id": "0", "query": "why", "excluded_ids": ["d0"], "gold_ids": ["d0", "d1"]}
    (tmp_path / "examples" / "biology.jsonl").write_text(json.dumps(example))
    assert read_retrieval(tmp_path).remarks.count(Irregularity.RELEVANT_EXCLUDED) == 1


def test_sentences_name_the_first_ids():
    remarks = Remarks()
    for number in range(1200):
        remarks.add(Irregularity.DOCUMENT_CONFLICT, f"d{number}")
    [(sentence, level)] = remarks.sentences()
    assert "1,200 (d0, d1, d2, ...)" in sentence
    assert level == "warning"


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not beside the checkout")
def test_cranfield_numbers_its_queries_and_documents():
    found = read_retrieval(SHARED / "cranfield", "test")
    assert found.excluded == {}
    assert (found.coincidence.coinciding, found.coincidence.same_text) == (225, 0)
