"""Documents into triplets: what asks, what answers, and what does not."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data.documents.drafts import title_forms
from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
from tests.data.pages import SMALL, page
from tests.data.running import facts, prepare, rows, write

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
TOPICS = ("river", "market", "engine", "garden", "planet", "violin")


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "docs"
    for topic in TOPICS:
        (root / topic).mkdir(parents=True)
        for number in range(8):
            (root / topic / f"{number}.md").write_text(page(topic, number), encoding="utf-8")
    return root


def made_of(out: Path, source, **fields) -> list[dict]:
    result = prepare(out, source, **{"chunking": SMALL, "balance": {"min_rows": 0}, **fields})
    assert result.state == "succeeded", result.end_reason
    return rows(out)


def test_a_tree_of_markdown_becomes_triplets(tree, tmp_path):
    asked = {"of": ["titles"]}
    found = made_of(
        tmp_path / "out", f"file:{tree}", negatives={"per_query": 4, "max_uses": 1000}, queries=asked
    )
    page = facts(tmp_path / "out")
    assert page["type"] == "triplets"
    assert len(found) == 48 * 4  # of three passages: the first has two titles
    assert {row["category"] for row in found} == set(TOPICS)
    first = next(row for row in found if row["positive_id"] == "river/0.md#0")
    assert first["query"] == "The river number 0"
    assert first["group"] == "river/0.md"
    # What asks is not in what answers.
    assert not any("How the" in row["positive"] for row in found)
    by_id = {row["positive_id"]: row["positive"] for row in found}
    counts: Counter[str] = Counter()
    for row in found:
        assert len(row["negatives"]) == len(row["difficulty"]) == len(row["negative_ids"])
        assert len(set(row["negatives"])) == len(row["negatives"])
        assert row["positive"] not in row["negatives"]
        assert [by_id[name] for name in row["negative_ids"]] == row["negatives"]
        counts.update(row["difficulty"])
        for name, level in zip(row["negative_ids"], row["difficulty"], strict=True):
            if level == "easy":
                assert name.split("/")[0] != row["category"]
    assert page["negatives"]["counts"] == dict(counts)
    whole = sum(counts.values())
    assert whole > 0.95 * 4 * len(found)
    for level, share in {"easy": 0.25, "medium": 0.40, "hard": 0.35}.items():
        assert abs(counts[level] - share * whole) <= 3


@pytest.mark.parametrize("purpose", ["embedding", "reranker"])
@pytest.mark.parametrize("cap", [1, 2])
def test_caps_and_the_mix_of_the_purpose(tree, tmp_path, purpose, cap):
    found = made_of(
        tmp_path / "out",
        f"file:{tree}",
        purpose=purpose,
        negatives={"per_query": 3, "max_per_difficulty": cap, "max_uses": 7},
    )
    uses = Counter(name for row in found for name in row["negative_ids"])
    assert max(uses.values()) <= 7
    assert max(max(Counter(row["difficulty"]).values(), default=0) for row in found) <= cap
    counts = Counter(level for row in found for level in row["difficulty"])
    mix = {"embedding": (0.25, 0.40, 0.35), "reranker": (0.20, 0.35, 0.45)}[purpose]
    if cap == 2:
        for level, share in zip(("easy", "medium", "hard"), mix, strict=True):
            assert abs(counts[level] / sum(counts.values()) - share) < 0.02


def test_the_splits_share_no_passage(tree, tmp_path):
    made_of(tmp_path / "out", f"file:{tree}", split={"dev": 0.2, "test": 0.2, "by": "group"})
    texts = {}
    for split in ("train", "dev", "test"):
        found = rows(tmp_path / "out", split)
        texts[split] = {text for row in found for text in (row["positive"], *row["negatives"])}
        assert sum(len(row["negatives"]) for row in found) > len(found)
    assert not texts["train"] & (texts["dev"] | texts["test"])
    assert not texts["dev"] & texts["test"]


def test_what_nearly_repeats_the_positive_is_never_a_negative(tmp_path):
    root = tmp_path / "docs"
    root.mkdir()
    words = " ".join(f"word{number}" for number in range(100))
    for number in range(12):
        (root / f"{number}.md").write_text(
            f"# Version {number}\n\nThe text is {words} and it ends with {number}.\n"
        )
    for number in range(12):
        other = " ".join(f"other{number}x{place}" for place in range(100))
        (root / f"other{number}.md").write_text(f"# Page {number}\n\nThis is {other}.\n")
    asked = {"of": ["titles"], "filters": {"boilerplate": None, "ambiguous": "keep"}}
    found = made_of(tmp_path / "out", f"file:{root}", queries=asked)
    alike = [row for row in found if row["query"].startswith("Version")]
    assert len(alike) == 12
    assert sum(len(row["negatives"]) for row in alike) >= 12
    for row in alike:
        assert not any("word7" in text for text in row["negatives"])


def test_a_query_of_two_passages_has_neither_as_a_negative(tmp_path):
    lines = [
        {"text": f"Answer {number} of all says {word} {word}.", "description": "what is the same for all"}
        for number, word in enumerate(["one", "two", "three"])
    ]
    lines += [
        {"text": f"Different passage {n} of number{n}.", "description": f"question {n}"} for n in range(8)
    ]
    found = made_of(
        tmp_path / "out",
        f"file:{write(tmp_path / 'chunks.jsonl', lines)}",
        queries={"of": ["description"], "filters": {"ambiguous": "keep"}},
    )
    answers = {line["text"] for line in lines[:3]}
    same = [row for row in found if row["query"] == "what is the same for all"]
    assert len(same) == 3
    assert not any(set(row["negatives"]) & answers for row in same)


def test_the_same_seed_gives_the_same_bytes(tree, tmp_path):
    for name, seed in (("one", 1), ("two", 1), ("other", 2)):
        made_of(tmp_path / name, f"file:{tree}", split={"test": 0.2}, seed=seed)
    one, two, other = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "dataset").glob("*.parquet")}
        for name in ("one", "two", "other")
    )
    assert one == two
    assert one != other


def test_ready_made_chunks_in_one_json_file(tmp_path):
    chunks = [
        {
            "id": f"{category}-{number}",
            "category": category,
            "title": f"{category} guide",
            "header_path": f"{category} guide > Part {number}",
            "content": f"How {category} part {number} is written: "
            + " ".join(f"{category}{number}t{index}" for index in range(20)),
        }
        for category in ("jsx", "mif")
        for number in range(10)
    ]
    path = tmp_path / "chunks.json"
    path.write_text(json.dumps({"version": 1, "chunks": chunks}, indent=1), encoding="utf-8")
    found = made_of(tmp_path / "out", f"file:{path}", negatives={"cross_category": 1.0, "per_query": 4})
    assert len(found) == 20
    assert found[3]["query"] == "jsx guide Part 3"
    assert found[3]["positive_id"] == "jsx-3"
    hard = [
        (row["category"], name.split("-")[0])
        for row in found
        for name, level in zip(row["negative_ids"], row["difficulty"], strict=True)
        if level == "hard"
    ]
    assert hard
    assert sum(own != other for own, other in hard) > 0.9 * len(hard)


def test_categories_are_balanced_by_leaving_out(tmp_path):
    lines = [
        {
            "query": f"{category} {number} asks",
            "positive": f"{category} {number} answers",
            "category": category,
        }
        for category, count in (("jsx", 100), ("mif", 40), ("other", 9))
        for number in range(count)
    ]
    source = f"file:{write(tmp_path / 'rows.jsonl', lines)}"
    assert (
        prepare(tmp_path / "even", source, balance={"shares": {"jsx": 0.5, "mif": 0.5}}).state == "succeeded"
    )
    assert facts(tmp_path / "even")["statistics"]["categories"] == {"jsx": 40, "mif": 40}
    assert facts(tmp_path / "even")["left_out"] == {"more than its category's share": 69}
    assert prepare(tmp_path / "all", source, balance={"shares": "even"}).state == "succeeded"
    assert facts(tmp_path / "all")["statistics"]["categories"] == {"jsx": 9, "mif": 9, "other": 9}
    result = prepare(tmp_path / "none", source, balance={"shares": {"jsx": 0.5, "mfi": 0.5}})
    assert "no row has the category mfi" in result.end_reason.message


def test_categories_are_balanced_within_each_split(tmp_path):
    lines = [
        {
            "query": f"{category} {number} asks",
            "positive": f"{category} {number} answers",
            "category": category,
        }
        for category, count in (("jsx", 300), ("mif", 100))
        for number in range(count)
    ]
    source = f"file:{write(tmp_path / 'rows.jsonl', lines)}"
    out = tmp_path / "out"
    result = prepare(
        out, source, balance={"shares": {"jsx": 0.25, "mif": 0.75}}, split={"dev": 0.2, "test": 0.2}
    )
    assert result.state == "succeeded", result.end_reason
    for split in ("train", "dev", "test"):
        found = pq.read_table(out / "dataset" / f"{split}.parquet").column("category").to_pylist()
        jsx, mif = found.count("jsx"), found.count("mif")
        assert mif > 0
        assert jsx == pytest.approx(mif / 3, abs=1)


def test_balancing_that_leaves_out_most_rows_names_the_scarce_category(tmp_path):
    lines = [
        {
            "query": f"{category} {number} asks",
            "positive": f"{category} {number} answers",
            "category": category,
        }
        for category, count in (("jsx", 200), ("mif", 100), ("learn", 3))
        for number in range(count)
    ]
    source = f"file:{write(tmp_path / 'rows.jsonl', lines)}"
    reporter = RecordingReporter()
    spec = {"kind": "prepare", "source": source, "balance": {"shares": "even"}, "split": {}}
    assert run_local(spec, tmp_path / "out", reporter).state == "succeeded"
    assert facts(tmp_path / "out")["splits"]["train"] == 9
    told = [
        str(event.data.message) for event in reporter.events if getattr(event.data, "level", "") == "warning"
    ]
    assert any("keeps 9 of 303 rows of split train: it has 3 of learn" in sentence for sentence in told)


def test_a_split_that_lacks_a_category_says_so(tmp_path):
    rare = [{"query": "only mif asks", "positive": "only mif answers", "category": "mif"}]
    lines = [{"query": f"{n} asks", "positive": f"{n} answers", "category": "jsx"} for n in range(60)]
    source = f"file:{write(tmp_path / 'rows.jsonl', rare + lines)}"
    reporter = RecordingReporter()
    spec = {"kind": "prepare", "source": source, "balance": {"shares": "even"}, "split": {"test": 0.3}}
    assert run_local(spec, tmp_path / "out", reporter).state == "succeeded"
    [told] = [
        event.data.message
        for event in reporter.events
        if "has no row of mif" in getattr(event.data, "message", "")
    ]
    absent = told.partition("split ")[2].partition(" ")[0]
    sizes = facts(tmp_path / "out")["splits"]
    assert sizes[absent] > 2  # whoever is there alone is no surplus
    assert sizes[{"test": "train", "train": "test"}[absent]] == 2


@pytest.mark.parametrize(("share", "warned"), [(0.5, False), (3.0, True)])
def test_the_least_number_of_rows_may_be_a_share_of_the_passages(tree, tmp_path, share, warned):
    reporter = RecordingReporter()
    spec = {
        "kind": "prepare",
        "task": "triplets",
        "source": {"ref": f"file:{tree}", "category": "docs"},
        "chunking": SMALL,
        "balance": {"min_rows": {"share": share}},
    }
    result = run_local(spec, tmp_path / "out", reporter)
    assert result.state == "succeeded", result.end_reason
    told = [event.data.message for event in reporter.events if "balance.min_rows" in str(event.data)]
    assert bool(told) is warned
    if warned:
        passages = facts(tmp_path / "out")["passages"]["all"]
        assert f"of {3 * passages}" in told[0]
        assert "a row for 300% of their passages" in told[0]


def test_chunks_alone_and_triplets_of_them(tree, tmp_path):
    result = prepare(tmp_path / "chunks", f"file:{tree}", task="chunks", chunking=SMALL)
    assert result.state == "succeeded", result.end_reason
    assert facts(tmp_path / "chunks")["type"] == "chunks"
    table = pq.read_table(tmp_path / "chunks" / "dataset" / "chunks.parquet").to_pylist()
    first = [row for row in table if row["document"] == "river/0.md"]
    text = (tree / "river" / "0.md").read_text()
    assert [text[row["start"] : row["end"]].strip() for row in first] == [row["text"] for row in first]
    assert first[1]["header_path"] == ["The river number 0", "How the river is used"]
    found = made_of(tmp_path / "out", f"file:{tmp_path / 'chunks' / 'dataset'}")
    assert {row["positive_id"] for row in found} == {row["id"] for row in table}
    # Nothing but triplets can be trained on.
    result = prepare(tmp_path / "no", f"file:{tree}", task="columns")
    assert result.end_reason.code == "bad_spec"


def test_a_retrieval_set_of_documents(tree, tmp_path):
    result = prepare(
        tmp_path / "out",
        f"file:{tree}",
        task="retrieval",
        chunking=SMALL,
        split={"test": 0.25},
        queries={"of": ["titles"]},
    )
    assert result.state == "succeeded", result.end_reason
    page = facts(tmp_path / "out")
    assert (page["type"], page["documents"]) == ("retrieval", 48 * 3)
    assert page["splits"]["test"] + page["splits"]["train"] == page["queries"] == 48 * 4

    from core.data.sources.retrieval import read_retrieval
    from core.data.training_rows.pairs import read_pairs

    dataset = read_retrieval(tmp_path / "out" / "dataset")
    assert len(dataset.corpus) == 48 * 3
    assert len(dataset.queries) == page["splits"]["test"]
    assert len(list(read_pairs(tmp_path / "out" / "dataset"))) == page["splits"]["train"]


FUNCTION = '''\
def {name}_function_{number}(value):
    """Return the {name} value number {number} of all."""
    total = value * {number} + len('{name}')
    return [total, {number}, '{name}{name}{name}{name}']
'''


def test_python_source(tmp_path):
    root = tmp_path / "src"
    root.mkdir()
    for name in ("a", "b", "c"):
        functions = "\n\n".join(FUNCTION.format(name=name, number=number) for number in range(4))
        (root / f"{name}.py").write_text(f"class Holder:\n    pass\n\n\n{functions}")
    (root / "broken.py").write_text("def broken(:\n")
    found = made_of(tmp_path / "out", f"file:{root}", max_reject_share=0.2)
    assert len(found) == 12
    assert found[0]["query"] == "Return the a value number 0 of all."
    assert '"""' not in found[0]["positive"]
    assert facts(tmp_path / "out")["unreadable"] == 1


def test_files_of_many_kinds_of_text(tmp_path):
    root = tmp_path / "docs"
    (root / ".git").mkdir(parents=True)
    (root / ".git" / "x.md").write_text("# Hidden\n\nNot a document.")
    (root / "bom.md").write_bytes(
        "\ufeff# Größe\r\n\r\nDie Größe steht hier, und zwar für alle.\r\n".encode()
    )
    (root / "wide.md").write_bytes("# Wide\n\nThis is UTF-16, as some editors write it.\n".encode("utf-16"))
    (root / "bad.md").write_bytes(b"# Bad\n\n\xff\xfe\xfa bytes and words.\n"[2:])
    (root / "empty.md").write_text("")
    (tmp_path / "secret.md").write_text("# Secret\n\nNobody may read this.")
    (root / "link.md").symlink_to(tmp_path / "secret.md")
    result = prepare(tmp_path / "out", f"file:{root}", task="chunks", max_reject_share=0.5)
    assert result.state == "succeeded", result.end_reason
    table = pq.read_table(tmp_path / "out" / "dataset" / "chunks.parquet").to_pylist()
    assert [(row["document"], row["title"]) for row in table] == [("bom.md", "Größe"), ("wide.md", "Wide")]
    assert facts(tmp_path / "out")["unreadable"] == 1


def test_a_folder_with_nothing_in_it_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    result = prepare(tmp_path / "out", f"file:{tmp_path / 'empty'}")
    assert result.end_reason.code == "bad_data"
    assert "neither rows" in result.end_reason.message


@pytest.mark.parametrize(
    ("title", "path", "expected"),
    [
        ("Request Body", ("Results",), ("Results", "Request Body Results")),
        ("Request Body", ("Request Body",), ("Request Body",)),
        ("Body", ("The request body",), ("The request body",)),
        # Words that the titles share, what explains a title, and what stands in parentheses.
        ("Response Headers", ("Custom Headers",), ("Custom Headers", "Response Custom Headers")),
        (
            "Response - HTML, files",
            ("Use it",),
            ("Use it", "Response Use it", "Response - HTML, files Use it"),
        ),
        (
            "Start",
            ("Deploy (optional)", "About"),
            ("About", "Start About", "Deploy About", "Start Deploy About"),
        ),
        (
            "Get-Item",
            ("Get-Item", "Parameters", "-Path"),
            ("-Path", "Get-Item -Path", "Parameters -Path", "Get-Item Parameters -Path"),
        ),
    ],
)
def test_a_title_becomes_more_specific_by_the_titles_above_it(title, path, expected):
    assert title_forms(title, path) == expected


@given(
    shares=st.tuples(st.integers(0, 10), st.integers(0, 10), st.integers(1, 10)),
    missing=st.sets(st.integers(0, 200), max_size=60),
)
@settings(max_examples=60)
def test_shares_are_kept_whatever_is_missing(shares, missing):
    from core.data.prepared.negatives import _Shares

    whole = sum(shares)
    kept = _Shares([share / whole for share in shares], slack=2)
    for place in range(300):
        # Hard ones are missing here and there.
        order = [level for level in kept.order() if not (level == 2 and place in missing)]
        if order:
            kept.counts[order[0]] += 1
    for level, share in enumerate(shares):
        if share == 0:
            assert kept.counts[level] == 0
        assert kept.counts[level] <= share / whole * (sum(kept.counts) + 1) + 3


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not beside the checkout")
def test_the_documentation_of_fastapi(tmp_path):
    result = prepare(
        tmp_path / "out",
        {"ref": f"file:{SHARED / 'docs_fastapi'}", "format": "markdown"},
        task="triplets",
        split={"dev": 0.05, "test": 0.05, "by": "group"},
    )
    assert result.state == "succeeded", result.end_reason
    found = rows(tmp_path / "out")
    counts = Counter(level for row in found for level in row["difficulty"])
    for level, share in {"easy": 0.25, "medium": 0.40, "hard": 0.35}.items():
        assert abs(counts[level] / sum(counts.values()) - share) < 0.01
    assert all(max(Counter(row["difficulty"]).values(), default=0) <= 3 for row in found)
    assert all(len(row["negatives"]) <= 4 for row in found)
    groups = [{row["group"] for row in rows(tmp_path / "out", split)} for split in ("train", "dev", "test")]
    assert sum(map(len, groups)) == len(set.union(*groups))
    lengths = [len(row["positive"]) for row in found]
    assert max(lengths) <= 5000
    assert sum(length > 2000 for length in lengths) > len(lengths) / 2


@pytest.mark.parametrize(
    "chunk",
    [
        {"text": "It flows to the sea.", "title": "River", "document": "r.md", "category": "water"},
        {
            "page_content": "It flows to the sea.",
            "metadata": {"title": "River", "category": "water", "source": "r.md"},
        },
        {"content": "It flows to the sea.", "header_path": "River", "category": "water", "filename": "r.md"},
    ],
)
def test_chunks_of_many_layouts(tmp_path, chunk):
    folder = tmp_path / "chunks"
    folder.mkdir()
    other = {"text": "A hill stands high above.", "title": "Hill", "category": "rock", "document": "h.md"}
    write(folder / "a.jsonl", [chunk])
    write(folder / "b.jsonl", [other])
    found = made_of(tmp_path / "out", f"file:{folder}")
    assert [(row["query"], row["category"], row["group"]) for row in found] == [
        ("River", "water", "r.md"),
        ("Hill", "rock", "h.md"),
    ]


def test_chunks_with_queries_of_their_own_and_ids_that_come_twice(tmp_path):
    lines = [
        {"id": "same", "text": "It flows to the sea.", "queries": "How does a river end?"},
        {"id": "same", "text": "It stands above the land.", "queries": ["What is a hill?", "What is high?"]},
        {
            "id": "x",
            "text": "std::vector<int> is a list",
            "title": "Lists",
            "header_path": "std::vector<int> constructor",
        },
    ]
    found = made_of(tmp_path / "out", f"file:{write(tmp_path / 'chunks.jsonl', lines)}")
    assert [(row["query"], row["positive_id"]) for row in found] == [
        ("How does a river end?", "same"),
        ("What is a hill?", "same~2"),
        ("What is high?", "same~2"),
        ("std::vector<int> constructor", "x"),
    ]


def test_python_in_its_own_encoding_and_python_that_is_too_deep(tmp_path):
    root = tmp_path / "src"
    root.mkdir()
    source = FUNCTION.format(name="größe", number=1)
    (root / "latin.py").write_bytes(f"# -*- coding: latin-1 -*-\n{source}".encode("latin-1"))
    (root / "deep.py").write_text("x=" + "-" * 200_000 + "1")
    found = made_of(tmp_path / "out", f"file:{root}", max_reject_share=0.5)
    assert [row["query"] for row in found] == ["Return the größe value number 1 of all."]
    assert facts(tmp_path / "out")["unreadable"] == 1


def test_no_negative_comes_twice_in_other_words(tmp_path):
    lines = [
        {
            "text": f"The text of passage {n % 12} says {' '.join(f'w{n % 12}x{i}' for i in range(9))}.",
            "title": f"T{n}",
        }
        for n in range(36)
    ]
    for row in made_of(
        tmp_path / "out",
        f"file:{write(tmp_path / 'c.jsonl', lines)}",
        negatives={"per_query": 6},
        dedup={"near": None},
    ):
        assert len(set(row["negatives"])) == len(row["negatives"])
