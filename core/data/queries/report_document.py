"""The report of made queries, for people: what they train on, and what was left out and why."""

import json
from pathlib import Path
from typing import Any

from core.reports import Details, Document, Heading, Listing, Table, Text, write_document

_SHOWN_QUERY = 300


def write_query_report(page: dict[str, Any], passages: int, folder: Path) -> None:
    """Write ``report.json``, ``report.md`` and ``report.html``. ``page`` is that of `QueryReport`."""
    told = json.dumps({**page, "passages": passages}, indent=2, ensure_ascii=False)
    (folder / "report.json").write_text(told, encoding="utf-8")
    write_document(_document(page, passages), folder)


def _document(page: dict[str, Any], passages: int) -> Document:
    made, left_out = page["made"], page["left_out"]
    return Document(
        "Queries made of documents",
        [
            Text(f"{sum(made.values()):,} queries for {passages:,} passages."),
            Table(["kind", "queries"], [[kind, f"{count:,}"] for kind, count in made.items()]),
            Text(
                f"{page['extended']:,} titles that other passages share were extended by the titles above "
                f"them. {page['boilerplate_sections']:,} sections are boilerplate and ask for nothing."
            ),
            *_language_model(page.get("language_model")),
            Heading("Twenty queries and their passages"),
            Text(
                "Drawn at random from all queries. Read them: a model that trains on queries which nobody "
                "would ask learns little."
            ),
            *(
                Details(f"{said['query'][:_SHOWN_QUERY]} ({said['kind']})", [Text(said["text"])])
                for said in page["shown"]
            ),
            Heading("Left out"),
            Table(["reason", "drafts and queries"], [[why, f"{n:,}"] for why, n in left_out.items()]),
            *(
                Details(why, [Listing([f"{said['query']!r}: {said['text'][:200]}" for said in examples])])
                for why, examples in page["examples"].items()
            ),
        ],
    )


def _language_model(said: dict[str, Any] | None) -> list[Text]:
    if said is None:
        return []
    about = "about " if said["tokens_estimated"] else ""
    return [
        Text(
            f"{said['model']} was asked about {said['passages']:,} passages and has answered for "
            f"{said['answered']:,}, with {about}{said['tokens']:,} tokens; {said['from_store']:,} answers "
            f"were stored before. {said['invalid']:,} answers had no query in them, and "
            f"{said['without_answer']:,} calls had no answer."
        )
    ]
