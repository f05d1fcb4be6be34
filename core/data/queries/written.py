"""Queries that a language model writes: which passages are asked about, and what becomes of the answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.data.dedup.mixing import mix
from core.data.documents.passage import Passage
from core.data.queries.choosing import Query
from core.data.queries.corpus_words import distinct_words
from core.data.queries.passage_file import Corpus
from core.data.queries.prompts import (
    drawn_types,
    judge_request,
    read_queries,
    read_scores,
    request_for,
)
from core.data.queries.query_report import QueryReport
from core.language_model.answers import Answer, Answers, answer_key
from core.language_model.asking import Asking, Prompt, ask_all
from core.language_model.chat import Chat, Limits
from core.language_model.endpoints import settle_endpoint
from core.runtime.context import RunContext
from core.spec.parts.queries import LanguageModel, Queries

_LEAST_TEXT = 100
"""Characters of a passage that a model is asked about."""

_RUN = 3


@dataclass(frozen=True)
class WrittenQueries:
    """The stored answers about a corpus's passages."""

    corpus: Corpus
    queries: Queries
    spec: LanguageModel
    answers: Answers
    asked: np.ndarray  # [passages] of bool

    def prompts(self) -> Iterator[Prompt]:
        """One for each passage that is asked about."""
        for number, passage, following in self.corpus.followed():
            if self.asked[number]:
                yield Prompt(request_for(passage, following, self.spec), has_queries)

    def of(
        self, number: int, passage: Passage, following: Passage | None, report: QueryReport
    ) -> list[Query]:
        """The queries of a passage that pass the filters which need no model. Reads stored answers alone."""
        if not self.asked[number]:
            return []
        request = request_for(passage, following, self.spec)
        found: list[Query] = []
        for kind, text in read_queries(self._answer(Prompt(request, has_queries))):
            if reason := self._fault(text, passage, found):
                report.leave_out(reason, "llm", text, passage)
                continue
            shared = kind == "multi_hop" and following is not None and kind in drawn_types(passage, self.spec)
            found.append(Query(text, "llm", shared=shared))
        return found

    def judgements(self, report: QueryReport) -> Iterator[Prompt]:
        """The prompt for the scores of each passage's queries."""
        for number, passage, following in self.corpus.followed():
            if found := self.of(number, passage, following, report):
                yield self._judgement(passage, following, found)

    def _judgement(self, passage: Passage, following: Passage | None, queries: list[Query]) -> Prompt:
        second = following if any(query.shared for query in queries) else None
        request = judge_request(passage, second, [query.text for query in queries], self.spec)
        return Prompt(request, lambda text: read_scores(text, len(queries)) is not None)

    def judged(
        self, passage: Passage, following: Passage | None, queries: list[Query], report: QueryReport
    ) -> list[Query]:
        """The queries that the model scores high enough. Those that have no score stay, and are counted."""
        judge = self.queries.filters.judge
        if judge is None or not queries:
            return queries
        text = self._answer(self._judgement(passage, following, queries))
        scores = read_scores(text, len(queries))
        if scores is None:
            report.unjudged += len(queries)
            return queries
        kept = []
        for query, score in zip(queries, scores, strict=True):
            if score >= judge.min_score:
                kept.append(query)
            else:
                report.leave_out("judged too low", "llm", query.text, passage)
        return kept

    def _answer(self, prompt: Prompt) -> str:
        answer: Answer | None = None
        for attempt in range(2):
            answer = self.answers.find(answer_key(prompt.request, attempt)) or answer
            if answer is not None and prompt.is_usable(answer.text):
                break
        return answer.text if answer is not None else ""

    def _fault(self, text: str, passage: Passage, others: Sequence[Query]) -> str | None:
        """Why a query cannot stay, as far as its passage tells."""
        filters = self.queries.filters
        if filters.no_copy is not None and _overlap(text, passage.text) > filters.no_copy.max_overlap:
            return "copied from the passage"
        if filters.near_duplicates is not None:
            words = set(distinct_words(text))
            for other in others:
                known = set(distinct_words(other.text))
                if len(words & known) >= filters.near_duplicates * len(words | known):
                    return "nearly another query of the passage"
        return None


def has_queries(text: str) -> bool:
    """Whether an answer has any query that can be read."""
    return bool(read_queries(text))


def _overlap(query: str, text: str) -> float:
    """The share of the query's runs of three words that the text contains; 0 for shorter queries."""
    words, known = query.lower().split(), " ".join(text.lower().split())
    runs = [" ".join(words[place : place + _RUN]) for place in range(len(words) - _RUN + 1)]
    return sum(run in known for run in runs) / len(runs) if runs else 0.0


def _asked(corpus: Corpus, spec: LanguageModel) -> np.ndarray:
    """Which passages are asked about: one of those that say the same, no boilerplate, perhaps a sample."""
    asked = np.zeros(len(corpus), bool)
    asked[np.unique(corpus.group, return_index=True)[1]] = True
    for number, passage in enumerate(corpus.passages()):
        if len(passage.text) < _LEAST_TEXT or corpus.is_boilerplate(number, -1):
            asked[number] = False
    if spec.sample is not None and spec.sample < asked.sum():
        able = np.flatnonzero(asked)
        order = np.argsort(mix(able.astype(np.uint64) ^ mix(np.array([spec.seed], np.uint64))))
        asked[:] = False
        asked[able[order[: spec.sample]]] = True
    return asked


def write_queries(
    corpus: Corpus, queries: Queries, context: RunContext, report: QueryReport
) -> WrittenQueries | None:
    """Ask the model about every passage that has no stored answer yet. None without a language model.

    Raises `EndpointFailure`, `BadSpec` or `Stopped`; the answers so far are stored then.
    """
    spec = queries.llm
    if spec is None:
        return None
    endpoint = settle_endpoint(spec, context.request.endpoints)
    limits = Limits(spec.concurrency, spec.requests_per_minute, spec.max_retries, spec.timeout_seconds)
    answers = Answers(context.request.cache / "answers", spec.model)
    written = WrittenQueries(corpus, queries, spec, answers, _asked(corpus, spec))
    total = int(written.asked.sum())
    context.phase("asking")

    def ask(prompts: Iterator[Prompt], before: int) -> Asking:
        def told(found: Asking) -> None:
            done = found.answered + found.invalid + found.without_answer
            context.progress(min(done, total), total)

        left = None if spec.max_tokens_total is None else max(0, spec.max_tokens_total - before)
        return ask_all(
            prompts,
            lambda: Chat(endpoint, limits, context.notice),
            answers,
            budget=left,
            ask_again=spec.on_invalid == "retry",
            should_stop=context.should_stop,
            told=told,
        )

    found = ask(written.prompts(), 0)
    context.check_stop()
    context.incomplete |= bool(found.without_answer or found.budget_reached)
    report.language_model = _said(spec, total, found)
    if queries.filters.judge is not None and not found.budget_reached:
        quiet = QueryReport(spec.seed)
        judged = ask(written.judgements(quiet), found.tokens)
        context.check_stop()
        context.incomplete |= bool(judged.without_answer or judged.budget_reached)
        report.language_model["judge"] = _said(spec, total, judged)
    _tell(spec, total, found, context)
    context.phase("preparing")
    return written


def _said(spec: LanguageModel, total: int, found: Asking) -> dict[str, Any]:
    return {
        "model": spec.model,
        "passages": total,
        "answered": found.answered,
        "from_store": found.from_store,
        "without_answer": found.without_answer,
        "invalid": found.invalid,
        "tokens": found.tokens,
        "new_tokens": found.new_tokens,
        "tokens_estimated": found.estimated,
        "budget_reached": found.budget_reached,
        "failed_tries": dict(found.reasons.most_common(10)),
    }


def _tell(spec: LanguageModel, total: int, found: Asking, context: RunContext) -> None:
    about = "about " if found.estimated else ""
    context.notice(
        f"{spec.model} has answered for {found.answered:,} of {total:,} passages "
        f"({found.from_store:,} answers were stored before); {about}{found.new_tokens:,} new tokens, "
        f"{about}{found.tokens:,} in all."
    )
    if found.budget_reached:
        context.notice(
            f"The budget of {spec.max_tokens_total:,} tokens (queries.llm.max_tokens_total) is used up: "
            f"{total - found.answered:,} passages have no queries of the model. With a larger budget the job "
            "continues from here.",
            "warning",
        )
    if found.without_answer:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in found.reasons.most_common(3))
        context.notice(
            f"{found.without_answer:,} passages got no answer after {spec.max_retries} further tries "
            f"({reasons}). The same job asks for them again.",
            "warning",
        )
    if found.invalid:
        context.notice(f"{found.invalid:,} answers could not be used: no query in them.", "warning")
