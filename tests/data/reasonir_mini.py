"""A miniature ReasonIR and BRIGHT in their true schema, with every malformation that is met in the field."""

import json
from pathlib import Path

INSTRUCTION = (
    "Given this reasoning-intensive query, find relevant documents that could help answer the question."
)

DOCUMENTS = {
    "biology": [
        ("fly_eyes/compound_0.txt", "Flies see with compound eyes of many small lenses."),
        ("fly_eyes/compound_1.txt", "Each lens of a compound eye sees one spot."),
        ("shared/clash_0.txt", "In biology this page is about cells."),
        ("empty/page_0.txt", "   "),
    ],
    "economics": [
        ("prices/rise_0.txt", "Prices rise when money is printed faster than goods are made."),
        ("shared/clash_0.txt", "In economics this page is about markets."),
    ],
    # The same documents stand in two splits: no collision.
    "aops": [("math/sum_0.txt", "The sum of the first n odd numbers is n squared.")],
    "theoremqa_questions": [("math/sum_0.txt", "The sum of the first n odd numbers is n squared.")],
}

EXAMPLES = {
    "biology": [
        ("0", "Why do flies see so fast?", ["fly_eyes/compound_0.txt", "fly_eyes/compound_1.txt"], ["N/A"]),
    ],
    "economics": [("0", "Why do prices rise?", ["prices/rise_0.txt"], ["shared/clash_0.txt"])],
    "aops": [],
    "theoremqa_questions": [("7", "What do odd numbers sum to?", ["math/sum_0.txt"], ["N/A"])],
}

HQ = [
    # 1: as it should be: the id is resolved, the negative is text.
    {
        "query": [INSTRUCTION, "How do insects form an image?"],
        "pos": [["", "fly_eyes/compound_0.txt"]],
        "neg": [["", "Camera lenses are ground from glass."]],
    },
    # 2: the query is a text already; two positives; a negative that is an id; one that is the positive.
    {
        "query": "Why does printing money hurt?",
        "pos": [["", "prices/rise_0.txt"], ["", "math/sum_0.txt"]],
        "neg": [["", "fly_eyes/compound_1.txt"], ["", "prices/rise_0.txt"]],
    },
    # 3: an id of no document: the row has no positive.
    {
        "query": [INSTRUCTION, "What is missing?"],
        "pos": [["", "gone/away_3.txt"]],
        "neg": [["", "Anything else."]],
    },
    # 4: an id that means different documents in different domains.
    {
        "query": [INSTRUCTION, "Which page is it?"],
        "pos": [["", "shared/clash_0.txt"]],
        "neg": [["", "Some text."]],
    },
    # 5: the same id, and a row that says of which domain it is.
    {
        "query": [INSTRUCTION, "What are cells about?"],
        "pos": [["", "shared/clash_0.txt"]],
        "neg": [["", "Some other text."]],
        "domain": "biology",
    },
    # 6: pairs that are none: three elements, one, a text, a number, none; one good positive among them.
    {
        "query": [INSTRUCTION, "Which lens sees one spot?"],
        "pos": [
            ["", "fly_eyes/compound_1.txt", "more"],
            ["fly_eyes/compound_1.txt"],
            ["", "fly_eyes/compound_1.txt"],
        ],
        "neg": ["a text alone", ["", 7], ["", ""], None, ["", "A negative that can be used."]],
    },
    # 7: no pairs at all.
    {"query": [INSTRUCTION, "What is nothing?"], "pos": None, "neg": None},
    # 8: an empty query, 9: a query that is no text.
    {"query": [INSTRUCTION, "  "], "pos": [["", "math/sum_0.txt"]], "neg": []},
    {"query": {"text": "x"}, "pos": [["", "math/sum_0.txt"]], "neg": []},
    # 10: an id of an empty document.
    {"query": [INSTRUCTION, "What does an empty page say?"], "pos": [["", "empty/page_0.txt"]], "neg": []},
]

VL = [
    {
        "query": ["", "Explain how rainbows come to be."],
        "pos": [["", "Light is bent in drops of rain, each colour by another angle."]],
        "neg": [["", "Rain falls when drops grow heavy."]],
    },
    # A label of one word is no document.
    {"query": ["", "Is this review good or bad?"], "pos": [["", "positive"]], "neg": [["", "negative"]]},
    # Instructions with words.
    {
        "query": ["Find a passage.", "How do bees dance?"],
        "pos": [["Represent the passage.", "Bees dance in figures of eight to tell where flowers are."]],
        "neg": [["Represent the passage.", "Wasps build nests of paper."]],
    },
]


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_reasonir(folder: Path) -> Path:
    write_jsonl(folder / "hq.jsonl", HQ)
    write_jsonl(folder / "vl.jsonl", VL)
    return folder


def write_bright(folder: Path) -> Path:
    """As a clone of the hub's repository has it: a file a domain, one of them Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for domain, documents in DOCUMENTS.items():
        rows = [{"id": name, "content": text} for name, text in documents]
        (folder / "documents").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / "documents" / f"{domain}-00000-of-00001.parquet")
        write_jsonl(
            folder / "long_documents" / f"{domain}.jsonl",
            [{"id": "whole_page", "content": " ".join(text for _, text in documents)}],
        )
        examples = [
            {
                "query": text,
                "reasoning": "",
                "id": name,
                "excluded_ids": excluded,
                "gold_ids_long": ["whole_page"],
                "gold_ids": gold,
            }
            for name, text, gold, excluded in EXAMPLES[domain]
        ]
        write_jsonl(folder / "examples" / f"{domain}.jsonl", examples)
    return folder
