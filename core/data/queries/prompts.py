"""What a language model is asked, and how its answers are read."""

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from core.data.documents.passage import Passage
from core.data.rows.row import check_text
from core.spec.parts.queries import LanguageModel, QueryType

_MOST_CHARACTERS = 6000
"""Of a passage in a prompt."""

_EXAMPLES = 5
"""Real queries that a prompt shows."""

_LONGEST = 400
"""Characters of a query. What is longer is no query."""

_WANTED: dict[QueryType, str] = {
    "question": "a natural question that the passage answers",
    "keywords": "a keyword search of two to six words, without a question mark, as people type into a search "
    "box",
    "how_to": "a question or search about how to do something that the passage explains",
    "symptom": "a description of a problem, an error or an observation that the passage explains or solves, "
    "in the words of somebody who does not know the cause",
    "multi_hop": "a question that needs both passages to be answered",
}

_SYSTEM = (
    "You write search queries that real users would type and that the given passage answers. Each query must "
    "make sense on its own: it names its subject, and never says 'the passage', 'this section' or 'the "
    "text'. Use other words than the passage where a user would. Do not copy sentences. Answer only with "
    'JSON: {"queries": [{"type": "...", "query": "..."}]}'
)


def drawn_types(passage: Passage, spec: LanguageModel) -> list[QueryType]:
    """The types that are asked for this passage, ``per_passage`` of them, drawn by their weights."""
    generator = random.Random(f"{spec.seed} types {passage.id}")  # noqa: S311 - not a secret
    return sorted(generator.choices(list(spec.types), list(spec.types.values()), k=spec.per_passage))


def request_for(passage: Passage, following: Passage | None, spec: LanguageModel) -> dict[str, Any]:
    """The request for the queries of a passage.

    ``following`` is the next passage of the same document, for questions that need both; without one, plain
    questions are asked instead.
    """
    types = drawn_types(passage, spec)
    if following is None:
        types = ["question" if name == "multi_hop" else name for name in types]
    lines = [_titled(passage, "Passage")]
    if following is not None and "multi_hop" in types:
        lines.append(_titled(following, "Next passage of the same document"))
    lines.append("Write:")
    lines += [f"- {count} of type {name}: {_WANTED[name]}" for name, count in Counter(types).items()]
    if spec.examples:
        generator = random.Random(f"{spec.seed} examples {passage.id}")  # noqa: S311 - not a secret
        shown = generator.sample(spec.examples, min(_EXAMPLES, len(spec.examples)))
        lines.append("Write in the style of these queries of real users, which are about other things:")
        lines += [f"- {' '.join(example.split())}" for example in shown]
    lines.append(f"Language of the queries: {spec.language or 'that of the passage'}.")
    return _request(spec, _SYSTEM, lines, spec.temperature)


def _request(spec: LanguageModel, system: str, lines: list[str], temperature: float) -> dict[str, Any]:
    return {
        "model": spec.model,
        "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": "\n".join(lines)},
        ],
        "temperature": temperature,
        "max_tokens": spec.max_tokens,
        "seed": spec.seed,
    }


def _titled(passage: Passage, name: str) -> str:
    titles = list(dict.fromkeys(title for title in (passage.title, *passage.path) if title))
    above = f" ({' > '.join(titles)})" if titles else ""
    return f'{name}{above}:\n"""\n{passage.text[:_MOST_CHARACTERS]}\n"""'


_COMMA = re.compile(r",[ \t\n]{0,100}([\]}])")
_PAIR = re.compile(r'"query"\s*:\s*"((?:[^"\\]|\\.)*)"')
_TYPED = re.compile(r'"type"\s*:\s*"(?P<type>\w+)"\s*,\s*"query"\s*:\s*"(?P<query>(?:[^"\\]|\\.)*)"')
_LINE = re.compile(r"^[ \t]*(?:[-*\u2022]|\d{1,4}[.)])[ \t]+(?P<text>\S[^\n]*)$", re.M)
_MOST_READ = 1 << 16
"""Characters of an answer that are read. Models that are held to JSON may write white space without end."""


def read_queries(text: str) -> list[tuple[str, str]]:
    """The queries of an answer with their types ("" where none is given), each text once.

    JSON is repaired where models usually break it: fences and words around it, commas before brackets, an end
    that is missing. A plain list with marks or numbers is read as well. Returns nothing for all else.
    """
    text = text[:_MOST_READ].strip()
    found = _of_json(_repaired(text))
    if found is None:
        typed = [(match["type"], _unescaped(match["query"])) for match in _TYPED.finditer(text)]
        found = typed or [("", _unescaped(match[1])) for match in _PAIR.finditer(text)]
    if not found and "{" not in text:
        found = [("", match["text"].strip("\"'* ")) for match in _LINE.finditer(text)]
    clean = ((kind, " ".join(query.split())) for kind, query in found)
    kept = {query: kind for kind, query in clean if _is_query(query)}
    return [(kind, query) for query, kind in kept.items()]


def _is_query(text: str) -> bool:
    try:
        check_text(text)
    except ValueError:  # what no file can hold
        return False
    return 1 < len(text) <= _LONGEST and not text.startswith("{")


def _repaired(text: str) -> Any:
    """The JSON value in a text; None if there is none that can be read."""
    starts = [place for place in (text.find("{"), text.find("[")) if place >= 0]
    if not starts:
        return None
    body = text[min(starts) : max(text.rfind("}"), text.rfind("]")) + 1]
    for tried in (body, _COMMA.sub(r"\1", body)):
        try:
            return json.loads(tried)
        except (ValueError, RecursionError):
            continue
    return None


def _list_in(value: Any) -> list[Any] | None:
    """A list, or the first list among the values of a mapping."""
    if isinstance(value, dict):
        value = next((inner for inner in value.values() if isinstance(inner, list)), None)
    return value if isinstance(value, list) else None


def _of_json(value: Any) -> list[tuple[str, str]] | None:
    """Queries of the form that was asked for, or of a list; None if the value has neither."""
    items = _list_in(value)
    if items is None:
        return None
    found = []
    for item in items:
        if isinstance(item, str):
            found.append(("", item))
        elif isinstance(item, dict) and isinstance(item.get("query"), str):
            kind = item.get("type")
            found.append((kind if isinstance(kind, str) else "", item["query"]))
    return found


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text


_JUDGE = (
    'You judge search results. Answer only with JSON: {"scores": [n, ...]}, one number from 1 to 10 for '
    "each query. 10: the passage answers the query completely. 5: it is about the topic, but does not "
    "answer. 1: it has nothing to do with it. Queries that make no sense without the passage get 1."
)


def judge_request(
    passage: Passage, following: Passage | None, queries: Sequence[str], spec: LanguageModel
) -> dict[str, Any]:
    """The request for a score of each query of a passage. ``following``: the second passage of queries that
    need both."""
    lines = [_titled(passage, "Passage")]
    lines += [_titled(following, "Next passage of the same document")] if following is not None else []
    lines += ["Queries:"]
    lines += [f"{number}. {query}" for number, query in enumerate(queries, 1)]
    return _request(spec, _JUDGE, lines, 0.0)


def read_scores(text: str, count: int) -> list[float] | None:
    """One score for each query; None if the answer does not have them."""
    value = _list_in(_repaired(text[:_MOST_READ]))
    if value is None or len(value) != count:
        return None
    try:
        return [float(item["score"] if isinstance(item, dict) else item) for item in value]
    except (TypeError, ValueError, KeyError, OverflowError):
        return None
