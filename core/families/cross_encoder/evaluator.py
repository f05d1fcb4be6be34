"""Rankings by a cross-encoder, of the candidates that somebody else has found."""

from collections.abc import Callable
from functools import partial

import numpy as np

from core.data.retrieval_sets.judgments import RetrievalSet
from core.engine.batching import Packing
from core.families import dense
from core.families.cross_encoder.model import load_retriever
from core.families.cross_encoder.pair_model import PairModel
from core.families.cross_encoder.scorer import score_with
from core.families.family import Rank, Use
from core.families.prompts import prompts_of
from core.families.static import packing_of
from core.ranking.bm25 import WordIndex, best_of
from core.ranking.metrics import Run, evaluate_run, mean
from core.ranking.rank_set import rank_by_vectors, rank_set
from core.ranking.search import Nearest
from core.ranking.triplets import Score
from core.runtime.context import RunContext
from core.spec.parts.evaluation import Rerank


def make_rank(model: PairModel, use: Use, packing: Packing, context: RunContext) -> Rank:
    """Candidates are found once a dataset, however often it is asked."""
    score = make_score(model, use, packing, context)
    found: dict[int, Run] = {}
    retrieve = make_retrieve(use.rerank, packing, context)

    def rank(dataset: RetrievalSet, depth: int) -> Run:
        if id(dataset) not in found:
            found[id(dataset)] = candidates = retrieve(dataset, use.rerank.depth)
            _tell(context, use, dataset, candidates)
        return rerank(score, dataset, found[id(dataset)], depth)

    return rank


def _tell(context: RunContext, use: Use, dataset: RetrievalSet, candidates: Run) -> None:
    """What there is to be won, and what it costs."""
    asked = use.rerank
    known = [metric for metric in use.metrics if "@" in metric]
    ceiling = f"recall@{asked.depth}"
    scores = evaluate_run(dataset.qrels, candidates, [*known, ceiling])
    own = ", ".join(f"{metric} {mean(scores[metric]):.4f}" for metric in known)
    pairs = sum(map(len, candidates.values()))
    context.notice(
        f"{asked.retriever} alone: {own}. Its {asked.depth} candidates hold {mean(scores[ceiling]):.1%} of "
        f"what is relevant. Each evaluation scores {pairs:,} pairs."
    )


def make_score(model: PairModel, use: Use, packing: Packing, context: RunContext) -> Score:
    score = score_with(model, packing, context.check_stop)
    before, within = use.prompts.query or "", use.prompts.document or ""
    return lambda pairs: score([(before + query, within + document) for query, document in pairs])


def make_retrieve(asked: Rerank, packing: Packing, context: RunContext) -> Rank:
    """Who finds the candidates."""
    if asked.retriever == "bm25":
        return partial(find_by_words, check_stop=context.check_stop)

    def retrieve(dataset: RetrievalSet, depth: int) -> Run:
        # Loaded when it is wanted, and forgotten: what is trained needs the memory.
        model = load_retriever(context, asked, context.device)
        prompts = prompts_of(asked.retriever, context)
        if asked.family == "late_interaction":
            from core.families import late_interaction

            return late_interaction.make_ranker(model, Use(prompts), packing, context).exactly(dataset, depth)
        encode = dense.make_encode(model, prompts, packing_of(model, packing), context.check_stop)
        return rank_by_vectors(encode, dataset, depth)

    return retrieve


def find_by_words(dataset: RetrievalSet, depth: int, check_stop: Callable[[], None]) -> Run:
    """By BM25."""
    index = WordIndex(list(dataset.corpus.values()))

    def find(most: int) -> Nearest:
        nearest = Nearest.none(len(dataset.queries), most)
        for number, query in enumerate(dataset.queries.values()):
            check_stop()
            every = index.scores(query)
            best = best_of(every, most)
            nearest.indices[number, : len(best)] = best
            nearest.scores[number, : len(best)] = every[best]
        return nearest

    return rank_set(dataset, depth, find)


def rerank(score: Score, dataset: RetrievalSet, candidates: Run, depth: int) -> Run:
    """The candidates in the order of their scores."""
    names = [(query, document) for query, documents in candidates.items() for document in documents]
    scores = score([(dataset.queries[query], dataset.corpus[document]) for query, document in names])
    run: dict[str, list[tuple[str, float]]] = {query: [] for query in candidates}
    for (query, document), value in zip(names, np.asarray(scores).tolist(), strict=True):
        run[query].append((document, value))
    return {
        query: dict(sorted(documents, key=lambda item: -item[1])[:depth]) for query, documents in run.items()
    }
