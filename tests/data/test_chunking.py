"""Passages cover a document, and nothing is cut that must stay whole."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data.documents.chunking import chunk, sentences
from core.data.documents.text_blocks import parse_markdown, parse_plain, parse_rst, plain

WORDS = st.text("abcdefgh XYZ.,", min_size=1, max_size=60).map(lambda text: " ".join(text.split()) or "word")
PARAGRAPH = st.lists(WORDS, min_size=1, max_size=6).map(
    lambda parts: ". ".join(part.capitalize() for part in parts) + "."
)
CODE = st.lists(WORDS, min_size=0, max_size=8).map(lambda lines: "```python\n" + "\n\n".join(lines) + "\n```")
TABLE = st.lists(WORDS, min_size=1, max_size=6).map(
    lambda cells: "| a | b |\n| - | - |\n" + "\n".join(f"| {cell} | x |" for cell in cells)
)
LIST = st.lists(WORDS, min_size=1, max_size=5).map(lambda items: "\n".join(f"* {item}" for item in items))
HEADING = st.builds(lambda level, words: "#" * level + " Title " + words, st.integers(1, 4), WORDS)
DOCUMENT = st.lists(st.one_of(PARAGRAPH, CODE, TABLE, LIST, HEADING), min_size=1, max_size=25).map(
    lambda blocks: "\n\n".join(blocks) + "\n"
)
SIZES = st.sampled_from([(1, 60), (100, 200), (300, 500), (50, 4000)])


@given(text=DOCUMENT, sizes=SIZES)
@settings(max_examples=150)
def test_passages_tile_the_text(text, sizes):
    parsed = parse_markdown(text)
    spans = chunk(parsed, *sizes)
    assert "".join(parsed.text[span.start : span.end] for span in spans) == parsed.text
    assert all(span.end > span.start for span in spans)


@given(text=DOCUMENT, sizes=SIZES)
@settings(max_examples=150)
def test_no_code_and_no_table_is_cut(text, sizes):
    parsed = parse_markdown(text)
    cuts = {span.start for span in chunk(parsed, *sizes)}
    inside = False
    offset = 0
    for line in parsed.text.split("\n"):
        fence = line.startswith("```")
        if inside or (line.startswith("| ") and not line.startswith("| a")):
            assert offset not in cuts
        inside ^= fence
        offset += len(line) + 1


@given(text=DOCUMENT, sizes=SIZES)
@settings(max_examples=150)
def test_only_what_cannot_be_cut_is_too_long(text, sizes):
    parsed = parse_markdown(text)
    for span in chunk(parsed, *sizes):
        if span.end - span.start > sizes[1]:
            blocks = [block for block in parsed.blocks if block.start < span.end and block.end > span.start]
            body = [block for block in blocks if not block.level]
            # One code block, table or sentence, and perhaps the titles above it.
            assert len(body) <= 1
            if body and body[0].prose:
                start = max(span.start, body[0].start)
                assert len(list(sentences(parsed.text[start : span.end]))) == 1


@given(text=DOCUMENT, overlap=st.integers(0, 80))
@settings(max_examples=100)
def test_what_is_repeated_is_what_was_asked_for(text, overlap):
    parsed = parse_markdown(text)
    spans = chunk(parsed, 100, 200, overlap)
    assert "".join(parsed.text[span.start + span.repeated : span.end] for span in spans) == parsed.text
    assert all(span.repeated <= overlap for span in spans)


@given(text=st.text(st.characters(codec="utf-8"), max_size=400))
@settings(max_examples=200)
def test_any_text_at_all(text):
    for parse in (parse_markdown, parse_rst, parse_plain):
        parsed = parse(text)
        spans = chunk(parsed, 20, 40)
        assert "".join(parsed.text[span.start : span.end] for span in spans) == parsed.text
        assert "".join(parsed.text[start:end] for start, end in sentences(parsed.text)) == parsed.text


def test_sections_stay_whole_where_they_fit():
    text = (
        "# One\n\n"
        + "First words here. " * 5
        + "\n\n## Two\n\n"
        + "Second words. " * 5
        + "\n\n## Three\n\nShort.\n"
    )
    parsed = parse_markdown(text)
    spans = chunk(parsed, 60, 200)
    assert [parsed.text[span.start : span.end].split("\n")[0] for span in spans] == ["# One", "## Two"]
    assert [[heading.path for heading in span.headings] for span in spans] == [
        [("One",)],
        [("One", "Two"), ("One", "Three")],
    ]


def test_a_title_is_never_the_end_of_a_passage():
    parsed = parse_markdown(
        "# One\n\n" + "Words stand here. " * 10 + "\n\n## Two\n\n```\n" + "code\n" * 40 + "```\n"
    )
    first, second = chunk(parsed, 150, 200)
    assert parsed.text[second.start :].startswith("## Two")
    assert first.path == ("One",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One is here. Two is there.", ["One is here. ", "Two is there."]),
        ("See e.g. Smith et al. Nobody did.", ["See e.g. Smith et al. Nobody did."]),
        (
            "Version 3.11 is out. Use v2.0 now! Why? Because.",
            ["Version 3.11 is out. ", "Use v2.0 now! ", "Why? ", "Because."],
        ),
        ('He said "No." Then he left.', ['He said "No." ', "Then he left."]),
        ("川は流れる。山は動かない。", ["川は流れる。", "山は動かない。"]),
        ("lower case follows. it goes on.", ["lower case follows. it goes on."]),
    ],
)
def test_sentences(text, expected):
    assert [text[start:end] for start, end in sentences(text)] == expected


def test_front_matter_is_no_text():
    parsed = parse_markdown(
        "---\r\ntitle: A page\r\ndescription: 'What it is: this'\r\n---\r\n# Head\r\n\r\nBody.\r\n"
    )
    assert parsed.facts == {"title": "A page", "description": "What it is: this"}
    assert parsed.text == "# Head\n\nBody.\n"
    assert parse_markdown("---\ntitle: [broken\nother: x\n---\ntext").facts["other"] == "x"
    assert parse_markdown("Text\n\n---\n\nmore").facts == {}


def test_headings_are_words():
    assert plain("Request **Body** with `Model` { #request-body }") == "Request Body with Model"
    assert plain("The [link](https://x.y) and <abbr title='x'>HTML</abbr>") == "The link and HTML"


RST = """\
=====
Title
=====

Words before. More words.

Part one
--------

A paragraph that leads to code::

    first = 1

    second = 2

Behind the code.

.. code-block:: python
   :linenos:

   def function():

       return 1

.. note::

   A note of one sentence.

Part two
--------

+-----+-----+
| a   | b   |
+-----+-----+
| c   | d   |
+-----+-----+

Deeper
~~~~~~

The end.
"""


def test_restructured_text():
    parsed = parse_rst(RST)
    titles = [(block.level, block.title) for block in parsed.blocks if block.level]
    assert titles == [(1, "Title"), (2, "Part one"), (2, "Part two"), (3, "Deeper")]
    whole = [
        parsed.text[block.start : block.end].strip()
        for block in parsed.blocks
        if not block.prose and not block.level
    ]
    assert whole[0].startswith("A paragraph that leads to code::")
    assert whole[0].endswith("second = 2")
    assert whole[1].endswith("return 1")
    assert whole[2].count("\n") == 4
    paths = [span.path for span in chunk(parsed, 1, 120)]
    assert ("Title", "Part two", "Deeper") in paths
