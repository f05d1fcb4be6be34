"""The report of made queries, for people: what they train on, and what was left out and why."""

import json
from pathlib import Path
from typing import Any

from core.reports import Block, Details, Document, Heading, Listing, Table, Text, write_document

_SHOWN_QUERY = 300


def write_query_report(page: dict[str, Any], passages: int, folder: Path) -> None:
    """Write ``report.json``, ``report.md`` and ``report.html``. ``page`` is that of `QueryReport`."""
    told = json.dumps({**page, "passages": passages}, indent=2, ensure_ascii=False)
    (folder / "report.json").write_text(told, encoding="utf-8")
    write_document(_document(page, passages), folder)


def _document(page: dict[str, Any], passages: int) -> Document:
    made, left_out, shown = page["made"], page["left_out"], page["shown"]
    by_people = made.keys() == {"given"} and page["asked"] is not None
    count = sum(made.values())
    if by_people:
        about = (
            f"{page['asked']:,} queries that people have asked. Each asks for all passages of its document: "
            f"{count:,} pairs of query and passage, of {passages:,} passages."
        )
    else:
        about = f"{count:,} queries for {passages:,} passages."
    return Document(
        "Queries that people have asked" if by_people else "Queries made of documents",
        [
            Text(about),
            *([] if by_people else [Table(["kind", "queries"], _counts(made))]),
            *_specific(page, by_people),
            *_language_model(page.get("language_model")),
            Heading(f"{len(shown)} queries and their passages"),
            Text(
                "Drawn at random from all queries. Read them: a model that trains on queries which nobody "
                "would ask learns little."
            ),
            *(
                Details(
                    f"{said['query'][:_SHOWN_QUERY]} ({said['kind']}, {said['document']})",
                    [Text(said["text"])],
                )
                for said in shown
            ),
            *(_left_out(page) if left_out else []),
        ],
    )


def _counts(counts: dict[str, int]) -> list[list[str]]:
    return [[name, f"{count:,}"] for name, count in counts.items()]


def _specific(page: dict[str, Any], by_people: bool) -> list[Text]:
    if by_people:
        return []
    told = []
    if page["extended"]:
        told.append(
            f"{page['extended']:,} titles and questions do not say by themselves what they are about, or "
            "others share their words: the titles above them were put before them."
        )
    if page["boilerplate_sections"]:
        told.append(
            f"{page['boilerplate_sections']:,} sections stand on many pages, nearly the same, and ask for "
            "nothing."
        )
    return [Text(" ".join(told))] if told else []


def _left_out(page: dict[str, Any]) -> list[Block]:
    """What became no query, with the reason; a draft is counted under the first reason that it meets."""
    kinds = page["left_out_kinds"]
    rows = [
        [why, f"{count:,}", ", ".join(f"{kind} {n:,}" for kind, n in kinds.get(why, {}).items())]
        for why, count in page["left_out"].items()
    ]
    examples = [
        Details(
            why,
            [
                Listing(
                    [
                        f"{said['query']!r} ({said['kind']}, {said['document']}): {said['text'][:200]}"
                        for said in found
                    ]
                )
            ],
        )
        for why, found in page["examples"].items()
    ]
    return [Heading("Left out"), Table(["reason", "drafts and queries", "of these"], rows), *examples]


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
