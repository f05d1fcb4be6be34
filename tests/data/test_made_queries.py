"""Queries made of documents: specific, from sections that say something, of several kinds, and shown."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data.documents.links import page_name, slug
from core.data.documents.passages import Cutting, Document, passages_of
from core.data.documents.text_blocks import plain
from core.data.queries.choosing import without
from core.data.queries.corpus_words import CorpusWords, words_key
from core.data.queries.prompts import read_queries, read_scores
from core.data.queries.real import RealQuery, resolve
from core.errors import InvalidRequest
from core.spec import parse_spec
from tests.data.pages import SMALL, page
from tests.data.reference_pages import write_reference_pages
from tests.data.running import facts, prepare, rows, write
from tests.tiny import make_cross_encoder

CHUNKS = {"min_characters": 300, "max_characters": 1000}


def made(out: Path, source: Path, **fields) -> list[dict]:
    spec = {"chunking": CHUNKS, "balance": {"min_rows": 0}, "negatives": {"per_query": 0}, **fields}
    result = prepare(out, f"file:{source}", **spec)
    assert result.state == "succeeded", result.end_reason
    return rows(out)


def drafts(text: str, name: str = "guide/page.md") -> dict[str, list[str]]:
    """By kind, the first forms of all drafts of a document."""
    found = defaultdict(list)
    for passage in passages_of(Document(name, None, ".md", text), Cutting(300, 5000, drafts=True)):
        for draft in passage.drafts:
            if not draft.refused:
                found[draft.kind].append(draft.forms[0])
    return found


@pytest.mark.parametrize("pages", [12, 120])
@pytest.mark.parametrize("ambiguous", ["extend", "drop"])
def test_no_two_queries_with_the_same_words_ask_for_different_passages(tmp_path, pages, ambiguous):
    write_reference_pages(tmp_path / "docs", pages)
    found = made(tmp_path / "out", tmp_path / "docs", queries={"filters": {"ambiguous": ambiguous}})
    asked = defaultdict(set)
    for row in found:
        asked[words_key(row["query"])].add(row["positive_id"])
    assert max(map(len, asked.values())) == 1
    told = facts(tmp_path / "out")["asking"]
    assert told["boilerplate_sections"] >= 6 * pages
    assert told["left_out"]["boilerplate section"] > 0
    if ambiguous == "drop":
        assert told["left_out"]["ambiguous"] > 0
    else:
        # Every parameter of its own is asked for by the name of its page.
        assert any(row["query"].endswith(" -Name") for row in found)
        assert not any(row["query"].startswith("-") for row in found)


def test_all_passages_answer_what_is_kept_although_it_is_ambiguous(tmp_path):
    write_reference_pages(tmp_path / "docs", 12)
    filters = {"ambiguous": "keep", "boilerplate": None}
    found = made(tmp_path / "out", tmp_path / "docs", queries={"of": ["titles"], "filters": filters})
    counts = Counter(row["query"] for row in found)
    assert max(counts.values()) > 5
    assert facts(tmp_path / "out")["asking"]["extended"] == 0


PAGE = """# Brewing coffee

The grinder stands beside the kettle, and both of them are cleaned every evening before the shop closes.

## What is the right temperature?

Water of 92 degrees dissolves the oils of the beans without making the cup taste bitter or burnt at all.

## Terms

**Crema**: the light brown foam that covers a fresh espresso for about two minutes after it was made.

**Bloom.** The first water makes the ground coffee rise, because gas that was made while roasting leaves it.

**FastBrew** will make sure that the cup is ready early, whatever the machine has been doing all morning.

![A kettle with a long curved spout](kettle.png)

**Q: Can I freeze whole beans?**

Yes: in small bags without air they keep for months, but they must not thaw before the bag is opened.
"""


def test_the_kinds_of_drafts():
    found = drafts(PAGE)
    assert found["titles"] == ["Brewing coffee", "Terms"]
    assert found["questions"] == ["What is the right temperature?", "Can I freeze whole beans?"]
    assert found["definitions"] == ["Crema", "Bloom"]
    assert found["captions"] == ["A kettle with a long curved spout"]
    assert found["first_sentence"][0].startswith("The grinder stands beside the kettle")


CHINESE = """# 咖啡

水的温度应该在九十二度左右\uff0c这样不会让咖啡变苦。每天晚上都要清洗磨豆机和水壶。

**如何保存咖啡豆\uff1f**

放在小袋子里隔绝空气\uff0c可以保存几个月\uff0c但开袋前不要解冻。
"""


def test_scripts_without_spaces_need_fewer_characters():
    found = drafts(CHINESE)
    assert found["titles"] == ["咖啡"]
    assert found["questions"] == ["如何保存咖啡豆\uff1f"]


def test_a_title_of_the_front_matter_asks_for_the_beginning():
    found = drafts("---\ntitle: How to brew\n---\n\n" + "The water must not boil, as it burns the cup. " * 9)
    assert found["titles"] == ["How to brew"]
    # Where the text has it as its first heading, it is one and the same.
    assert drafts("---\ntitle: Brewing coffee\n---\n\n" + PAGE)["titles"] == ["Brewing coffee", "Terms"]


def test_a_title_of_nothing_is_refused_with_the_reason(tmp_path):
    (tmp_path / "docs").mkdir()
    text = PAGE.replace("## Terms", "## See also\n\n[a](b.md), [c](d.md)\n\n## Terms")
    (tmp_path / "docs" / "coffee.md").write_text(text)
    (tmp_path / "docs" / "tea.md").write_text(PAGE.replace("coffee", "tea").replace("Crema", "Steam"))
    found = made(tmp_path / "out", tmp_path / "docs")
    assert not any("See also" in row["query"] for row in found)
    told = facts(tmp_path / "out")["asking"]
    assert told["left_out_kinds"]["section says too little"] == {"titles": 1}


@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("`__init__` of *path operation functions* { #a }", "__init__ of path operation functions"),
        ("**`List<str>`** and <abbr title='x'>JSON</abbr>", "List<str> and JSON"),
        ("snake_case_name, _em_ and 2 * 3 * 4", "snake_case_name, em and 2 * 3 * 4"),
        ("C\\# \\_x\\_", "C# _x_"),
        ("[`FastAPI`](reference/fastapi.md) class", "FastAPI class"),
    ],
)
def test_marks_are_no_words(heading, words):
    assert plain(heading) == words


def test_the_marks_around_what_asks_go_with_it(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "coffee.md").write_text(PAGE)
    (tmp_path / "docs" / "tea.md").write_text(PAGE.replace("coffee", "tea").replace("Crema", "Steam"))
    kinds = {"of": ["questions", "definitions"]}
    found = made(tmp_path / "out", tmp_path / "docs", queries=kinds)
    assert {row["query"] for row in found} >= {"Crema", "Brewing coffee Can I freeze whole beans?"}
    assert not any("****" in row["positive"] or "**:" in row["positive"] for row in found)
    [text] = {row["positive"] for row in found if row["query"] == "Crema"}
    assert "\nthe light brown foam" in text
    assert "Q:" not in text


def test_what_asks_is_not_in_what_answers(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "coffee.md").write_text(PAGE)
    (tmp_path / "docs" / "tea.md").write_text(PAGE.replace("coffee", "tea").replace("Crema", "Steam"))
    for row in made(tmp_path / "out", tmp_path / "docs", queries={"of": ["questions", "captions"]}):
        assert row["query"] not in row["positive"]
        assert len(row["positive"]) > 200


def test_links_ask_for_the_section_that_they_lead_to(tmp_path):
    docs = tmp_path / "docs"
    (docs / "guide").mkdir(parents=True)
    body = " ".join(f"word{index}" for index in range(60))
    (docs / "guide" / "setup.md").write_text(
        f"# Setup\n\n{body}.\n\n## First steps\n\n{body} a b c d e f g.\n\n## Odd {{ #last }}\n\nZ {body}.\n"
    )
    (docs / "index.md").write_text(
        f"# Start\n\n{body} x. See [how to install the tool](guide/setup.md#first-steps) and [the peculiar "
        "remainder](./guide/setup.md#last), [here](https://example.org), or [setting up](guide/setup.md).\n"
    )
    found = made(tmp_path / "out", docs, queries={"of": ["links"]}, chunking=SMALL)
    asked = {row["query"]: row["positive_id"] for row in found}
    assert asked == {
        "how to install the tool": "guide/setup.md#1",
        "the peculiar remainder": "guide/setup.md#2",
        "setting up": "guide/setup.md#0",
    }


def test_self_supervised_rows_train_and_are_never_tested_on(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(30):
        text = " ".join(
            f"Sentence {place} of page {number} says word{number}x{place}." for place in range(12)
        )
        (docs / f"{number}.md").write_text(f"# Page of topic{number}\n\n{text}\n")
    out = tmp_path / "out"
    of = {"titles": 1, "inverse_cloze": 1, "crops": 1}
    found = made(out, docs, queries={"of": of}, split={"test": 0.2, "by": "group"})
    told = facts(out)
    assert told["asking"]["made"].keys() == {"titles", "inverse_cloze", "crops"}
    assert all(row["query"].startswith("Page of topic") for row in rows(out, "test"))
    assert told["left_out"]["a part of its own passage: not tested on"] > 0
    cloze = [row for row in found if row["query"].startswith("Sentence") and row["query"].endswith(".")]
    hidden = sum(row["query"] not in row["positive"] for row in cloze)
    assert 0.7 * len(cloze) <= hidden <= len(cloze)
    # With nothing else, they are tested on all the same.
    made(tmp_path / "only", docs, queries={"of": ["crops"]}, split={"test": 0.2})
    assert rows(tmp_path / "only", "test")


def test_weights_are_shares_and_no_passage_stays_without_a_query(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(60):
        body = " ".join(f"w{number}x{index}" for index in range(40))
        title = f"# Title of number{number}\n\n" if number % 2 else ""
        (docs / f"{number}.md").write_text(f"{title}The thing number{number} is small. And {body}.\n")
    made(tmp_path / "out", docs, queries={"of": {"titles": 1, "first_sentence": 0.1}})
    counts = facts(tmp_path / "out")["asking"]["made"]
    assert counts["titles"] == 30
    assert 30 <= counts["first_sentence"] <= 38
    assert facts(tmp_path / "out")["passages"]["nobody_asks_for"] == 0


def test_a_round_trip_by_words_leaves_out_what_does_not_find_its_passage(tmp_path):
    lines = [
        {"id": f"{n}", "text": f"Passage {n} is about thing{n} and nothing else of interest here."}
        | {"title": f"thing{n} in detail" if n else "completely foreign words"}
        for n in range(20)
    ]
    source = write(tmp_path / "chunks.jsonl", lines)
    filters = {"round_trip": {"model": "bm25", "top_k": 3}}
    found = made(tmp_path / "out", source, queries={"of": ["titles"], "filters": filters})
    assert {row["positive_id"] for row in found} == {str(n) for n in range(1, 20)}
    told = facts(tmp_path / "out")["asking"]
    assert told["left_out"] == {"does not find its passage": 1}
    [example] = told["examples"]["does not find its passage"]
    assert (example["query"], example["passage"]) == ("completely foreign words", "0")


def test_a_round_trip_by_a_model_and_scores_by_a_cross_encoder(tmp_path, tiny_model):
    tiny_cross_encoder = make_cross_encoder(tmp_path / "cross-encoder", tiny_model)
    lines = [
        {"id": f"{n}", "text": f"long mountain {n} and water {n}", "title": f"river {n}"} for n in range(8)
    ]
    source = write(tmp_path / "chunks.jsonl", lines)
    filters = {
        "round_trip": {"model": f"file:{tiny_model}", "top_k": 8},
        "cross_encoder": {"model": f"file:{tiny_cross_encoder}", "min_score": 1e6},
    }
    result = prepare(
        tmp_path / "out",
        f"file:{source}",
        queries={"of": ["titles"], "filters": filters},
        dedup={"near": None},
    )
    assert result.end_reason.code == "bad_data"
    assert "scored too low by the cross-encoder: 8" in result.end_reason.message
    filters["cross_encoder"]["min_score"] = -1e6
    found = made(
        tmp_path / "two", source, queries={"of": ["titles"], "filters": filters}, dedup={"near": None}
    )
    assert len(found) == 8


def test_the_report_shows_twenty_queries_beside_their_passages(tmp_path):
    write_reference_pages(tmp_path / "docs", 20)
    made(tmp_path / "out", tmp_path / "docs")
    text = (tmp_path / "out" / "report" / "report.md").read_text()
    shown = json.loads((tmp_path / "out" / "report" / "report.json").read_text())["shown"]
    assert len(shown) == 20
    assert all(said["query"] in text and said["text"] for said in shown)
    assert (tmp_path / "out" / "report" / "report.html").exists()


def test_nothing_that_asks_is_said_with_the_reasons(tmp_path):
    lines = [{"text": f"The same for all, and number {n % 2} too.", "title": f"T{n}"} for n in range(12)]
    result = prepare(tmp_path / "out", f"file:{write(tmp_path / 'c.jsonl', lines)}")
    assert result.end_reason.code == "bad_data"
    assert "no query could be made of 12 passages (boilerplate section: " in result.end_reason.message


def test_real_queries_judge(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    for topic in ("river", "market"):
        for number in range(3):
            (docs / f"{topic}{number}.md").write_text(page(topic, number))
    asked = [
        {"query": "where is the first river", "document": "river0.md"},
        {"query": "which page is this", "url": "https://example.org/docs/market2.html?from=search"},
        {"query": "lost", "document": "gone.md"},
    ]
    out = tmp_path / "out"
    result = prepare(
        out,
        f"file:{docs}",
        task="retrieval",
        chunking=SMALL,
        queries={"real": f"file:{write(tmp_path / 'log.jsonl', asked)}"},
    )
    assert result.state == "succeeded", result.end_reason
    told = facts(out)
    assert (told["type"], told["queries"], told["splits"]) == ("retrieval", 2, {"test": 6})
    assert told["left_out"] == {} or told["asking"]["left_out"] == {"names an unknown document": 1}
    nothing = prepare(
        tmp_path / "none",
        f"file:{docs}",
        task="retrieval",
        queries={"real": f"file:{write(tmp_path / 'lost.jsonl', asked[2:])}"},
    )
    assert "no row names a document of the source. The first of 1 rows names 'gone.md'" in (
        nothing.end_reason.message
    )


def test_a_passage_that_does_not_exist_is_said_to_be_its_document():
    passages = list(passages_of(Document("a.md", None, ".md", PAGE), Cutting(300, 500)))
    asked = [RealQuery("one", ("a.md#0",)), RealQuery("two", ("a.md#99", "page:a"))]
    found = resolve(asked, passages)
    assert (found.unknown, found.whole) == ([], ["a.md#99"])
    assert found.of(passages[0]) == ["one", "two"]
    assert found.of(passages[-1]) == ["two"]


def test_real_queries_are_resolved_by_the_most_exact_name():
    from core.data.documents.passage import Passage

    passages = [Passage(f"{name}#0", "text", name) for name in ("body.md", "tutorial/body.md")]
    queries = [RealQuery("q", ("x", "page:en/tutorial/body", "page:tutorial/body", "page:body"))]
    found = resolve(queries, passages)
    assert [found.of(passage) for passage in passages] == [[], ["q"]]


@pytest.mark.parametrize(
    ("queries", "sentence"),
    [
        ({"of": ["llm"]}, "of contains llm"),
        ({"of": ["titles"], "llm": {"endpoint": "http://h/v1", "model": "m"}}, "of does not contain llm"),
        ({"llm": {"endpoint": "ftp://host", "model": "m"}}, "begins with http"),
        ({"llm": {"endpoint": "http://me:key@h/v1", "model": "m"}}, "a key belongs in the environment"),
        ({"llm": {"endpoint": "http://h/v1", "model": "m", "api_key_env": "sk-123"}}, "pattern"),
        ({"filters": {"judge": {}}}, "judge needs llm"),
        ({"of": {"titles": -1}}, "greater than or equal to 0"),
        ({"of": ["heading"]}, "titles"),
        ({"real": "file:/q.jsonl"}, "needs task: retrieval"),
    ],
)
def test_specs_that_are_refused(queries, sentence):
    with pytest.raises(InvalidRequest) as refused:
        parse_spec({"kind": "prepare", "source": "file:/docs", "queries": queries})
    assert sentence in str([vars(problem) for problem in refused.value.problems])


def test_the_names_of_older_versions_are_read():
    spec = parse_spec({"kind": "prepare", "source": "file:/d", "queries": {"of": ["headings", "docstrings"]}})
    assert list(spec.queries.of) == ["titles", "docstring"]


@given(st.text(max_size=80), st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80)), max_size=6))
@settings(max_examples=200, deadline=None)
def test_what_is_hidden_is_gone_and_the_rest_stays(text, pairs):
    spans = [(min(pair), min(max(pair), len(text))) for pair in pairs]
    kept = "".join(
        letter for place, letter in enumerate(text) if not any(one <= place < two for one, two in spans)
    )
    assert without(text, spans) == kept.strip()


def test_a_word_of_one_passage_is_specific_and_a_word_of_all_is_not():
    words = CorpusWords()
    words.add([f"remarks on subject{number}" for number in range(100)])
    assert words.is_specific("subject7")
    assert words.is_specific("something unknown")
    assert not words.is_specific("Remarks")
    assert words.is_specific("Remarks subject7")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"queries": [{"type": "question", "query": "what is it?"}]}', [("question", "what is it?")]),
        ('```json\n{"queries": [{"query": "a b",},]}\n```', [("", "a b")]),
        ('Sure! {"queries": ["one two", "one two", "three"]}', [("", "one two"), ("", "three")]),
        ('{"queries": [{"type": "how_to", "query": "do it"}, {"type": "que', [("how_to", "do it")]),
        ("1. first query\n2. second query", [("", "first query"), ("", "second query")]),
        ('- "how to"\n- *what*', [("", "how to"), ("", "what")]),
        ("", []),
        ("I cannot help with that.", []),
        ("{}", []),
        ("[1, 2]", []),
        ("[" * 100_000, []),
    ],
)
def test_answers_are_repaired(text, expected):
    assert read_queries(text) == expected


@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_answer_is_read(text):
    for kind, query in read_queries(text):
        assert isinstance(kind, str)
        assert query.strip() == query != ""
    read_scores(text, 2)


def test_scores_must_be_complete():
    assert read_scores('{"scores": [7, "3"]}', 2) == [7.0, 3.0]
    assert read_scores('{"scores": [7]}', 2) is None
    assert read_scores("no", 1) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("Guide/Index.md", "guide"),
        ("a/b.HTML", "a/b"),
        ("README.md", ""),
        ("/a/", "a"),
        ("v1.2/x.rst", "v1.2/x"),
    ],
)
def test_pages_are_called_as_links_call_them(path, expected):
    assert page_name(path) == expected


def test_slugs():
    assert slug("First Steps: `x`!") == "first-steps-x"


def test_all_rows_of_a_passage_are_in_one_split(tmp_path):
    lines = [
        {"id": f"{n}", "title": f"subject{n} in short"}
        | {"text": " ".join(f"Sentence {place} says word{n}x{place} of it." for place in range(5))}
        for n in range(60)
    ]
    queries = {"of": {"titles": 1, "inverse_cloze": 1}}
    out = tmp_path / "out"
    made(out, write(tmp_path / "c.jsonl", lines), queries=queries, split={"test": 0.3})
    train, test = ({row["positive_id"] for row in rows(out, split)} for split in ("train", "test"))
    assert test
    assert not train & test


def test_documents_of_one_name_in_two_sources_are_two_documents(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for number in range(4):
            (tmp_path / folder / f"{number}.md").write_text(page(folder, number))
    result = prepare(
        tmp_path / "out",
        [f"file:{tmp_path / 'one'}", f"file:{tmp_path / 'two'}"],
        task="chunks",
        chunking=SMALL,
    )
    assert result.state == "succeeded", result.end_reason
    found = pq.read_table(tmp_path / "out" / "dataset" / "chunks.parquet").column("id").to_pylist()
    assert len(set(found)) == len(found) == 24
    assert {"0.md#0", "1/0.md#0"} <= set(found)


def test_words_that_name_nothing_are_no_queries(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(30):
        body = f"Look here for thing{number}, which is " + " ".join(f"w{number}x{at}" for at in range(30))
        body = f"# Page of thing{number}\n\n{body}"
        (docs / f"p{number}.md").write_text(f"{body}. Or look [here](p{(number + 1) % 30}.md).\n")
    made(tmp_path / "out", docs, queries={"of": ["links", "titles"]})
    assert "links" not in facts(tmp_path / "out")["asking"]["made"]


def test_queries_beside_a_chunk_are_all_used(tmp_path):
    lines = [
        {"text": f"Passage {n} says a{n} b{n} c{n}.", "queries": [f"query {n} {at}" for at in range(10)]}
        for n in range(5)
    ]
    found = made(tmp_path / "out", write(tmp_path / "c.jsonl", lines), queries={"per_passage": 2})
    assert len(found) == 50


def test_a_label_belongs_to_the_heading_right_below_it():
    text = (
        ".. _first:\n\nAlpha\n=====\n\n" + "a word. " * 40 + "\n\n.. _figure:\n\nThis is no heading.\n\n"
        "Omega\n=====\n\n" + "other words. " * 40
    )
    document = Document("x.rst", None, ".rst", text)
    found = [passage.anchors for passage in passages_of(document, Cutting(50, 400, drafts=True))]
    assert sum("label:first" in anchors for anchors in found) == 1
    assert not any("label:figure" in anchors for anchors in found)


def test_long_titles_and_half_characters_crash_nothing(tmp_path):
    lines = [
        {"text": "One says this of it all.", "title": "long " * 100},
        {"text": "Two says that of it all.", "title": "short title of two", "headers": ["\ud800 x"]},
        {"text": "Three says more of it.", "title": "third title here"},
    ]
    found = made(tmp_path / "out", write(tmp_path / "c.jsonl", lines), max_reject_share=0.9)
    assert "third title here" in {row["query"] for row in found}
    assert facts(tmp_path / "out")["unreadable"] == 1


@pytest.mark.parametrize(
    "row", [{"query": "q", "document": "http://[x/y"}, {"query": "\ud800", "document": "x"}]
)
def test_real_queries_that_cannot_be_read_are_named(tmp_path, row):
    (tmp_path / "a.md").write_text(page("river", 1))
    result = prepare(
        tmp_path / "out",
        f"file:{tmp_path / 'a.md'}",
        task="retrieval",
        queries={"real": f"file:{write(tmp_path / 'log.jsonl', [row])}"},
    )
    assert result.end_reason.code == "bad_data", result.end_reason


def test_a_teachers_scores_are_in_the_rows(tmp_path, tiny_model):
    teacher = make_cross_encoder(tmp_path / "cross-encoder", tiny_model)
    lines = [{"text": f"long mountain {n} and water {n}", "title": f"river {n}"} for n in range(12)]
    filters = {"cross_encoder": {"model": f"file:{teacher}", "keep_scores": True}}
    found = made(
        tmp_path / "out",
        write(tmp_path / "c.jsonl", lines),
        queries={"of": ["titles"], "filters": filters},
        negatives={"per_query": 2},
        dedup={"near": None},
    )
    assert all(len(row["scores"]) == 1 + len(row["negatives"]) for row in found)
    assert any(row["negatives"] for row in found)


@pytest.mark.parametrize(
    ("body", "asks"),
    [
        ("It explains the matter at hand in a sentence or two.", True),
        ("{* ../../docs_src/some/long/path/to/tutorial001_an_py310.py hl[1,2,3] *}", False),
        ("/// note | A box without any words in it at all\n\n///", False),
        ("Here are some of the additional data types that you can use:", False),
        ("Here is what you can use: words and words and words.", True),
    ],
)
def test_a_title_asks_only_for_a_section_that_says_something(body, asks):
    assert ("The part" in drafts(f"# Page\n\n## The part\n\n{body}\n")["titles"]) is asks


def test_what_per_passage_leaves_out_is_counted(tmp_path):
    (tmp_path / "docs").mkdir()
    for page_ in ("one", "two"):
        parts = "".join(f"## Part {n} {page_}\n\n{f'word{n}{page_} ' * 9}\n\n" for n in range(6))
        (tmp_path / "docs" / f"{page_}.md").write_text(f"# Page {page_}\n\n{parts}")
    kinds = {"of": ["titles"], "per_passage": 3}
    found = made(
        tmp_path / "out",
        tmp_path / "docs",
        queries=kinds,
        chunking={"min_characters": 5000, "max_characters": 5000},
    )
    assert len(found) == 6
    assert facts(tmp_path / "out")["asking"]["left_out"]["more than per_passage"] == 8
