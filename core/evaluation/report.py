"""The report of an evaluation: markdown, HTML and plots."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten

import numpy as np

from core.data.retrieval_sets.judgments import RetrievalSet
from core.evaluation.page import EvaluationPage
from core.evaluation.results import Evaluated
from core.ranking.comparison import Compared, format_p_value
from core.ranking.metrics import evaluate_run, mean
from core.ranking.scores import ranking_metrics
from core.reports import Block, Details, Document, Figure, Heading, Listing, Sizes, StoredAs, Table, Text
from core.reports.plots import plot_by_depth, plot_gains, plot_histograms, plot_intervals
from core.spec.evaluate import EvaluateSpec
from core.spec.parts.models import format_length

_DEPTHS = (1, 2, 3, 5, 10, 20, 30, 50, 100)
_APART = 0.1
_COUNTS = ("queries", "documents", "relevant", "judged")


def make_document(spec: EvaluateSpec, found: Evaluated, page: EvaluationPage, folder: Path) -> Document:
    compared = page.comparisons
    leading = [item for item in compared if item.metric == page.leading]
    blocks: list[Block] = [
        Text(
            f"{item.model} on {item.dataset}, against {page.baseline}. {item.verdict}",
            item.tone,
        )
        for item in leading
    ]
    blocks += [Heading("Scores"), _scores_table(spec, page)]
    if apart := [name for name in page.datasets if _judged_apart(page, name)]:
        blocks.append(
            Text(
                f"On {', '.join(apart)} the models found documents that nobody has judged to different "
                "extents (unjudged@10 in report.json). They count as wrong, and some may not be."
            )
        )
    blocks += _comparison_blocks(spec, found, compared, folder)
    blocks += _category_blocks(page)
    blocks += _size_blocks(spec, page)
    blocks += _latency_blocks(page)
    blocks += _ranking_plots(found, folder)
    blocks += _example_blocks(page)
    blocks += [
        Heading("What was evaluated"),
        Table(
            ["dataset", "from", *_COUNTS],
            [
                [name, summary.ref, *(f"{getattr(summary, count):,}" for count in _COUNTS)]
                for name, summary in page.datasets.items()
            ],
            words=2,
        ),
        *_remark_blocks(found),
        Table(
            ["model", "from", "family", "weights", "tokens of a text", "prompts", "seconds"],
            [
                [
                    name,
                    facts.model,
                    facts.family or "",
                    (facts.weights_sha256 or "")[:12],
                    format_length(facts.max_length) if facts.max_length is not None else "",
                    facts.prompts or "",
                    f"{sum(page.seconds[name].values()):,.1f}",
                ]
                for name, facts in page.models.items()
            ],
            words=4,
        ),
        *_retriever_blocks(page),
        *_tokenizer_blocks(page),
    ]
    return Document(spec.name or "Evaluation", blocks)


def _remark_blocks(found: Evaluated) -> list[Block]:
    """The irregularities of the datasets, and what was done about them."""
    sentences = [
        f"{named.name}: {sentence}"
        for named in found.sets
        for sentence, _ in named.dataset.remarks.sentences()
    ]
    return [Listing(sentences)] if sentences else []


def _retriever_blocks(page: EvaluationPage) -> list[Block]:
    """Whose candidates rerankers bring into order."""
    return [
        Text(f"{name} brings the {facts.depth} best candidates of {facts.reranks} into order.")
        for name, facts in page.models.items()
        if facts.reranks is not None
    ]


def _tokenizer_blocks(page: EvaluationPage) -> list[Block]:
    """What BM25 counts, where it takes part or finds candidates."""
    known = {facts.tokenizer or facts.retriever_tokenizer for facts in page.models.values()}
    return [Text(f"Tokens of BM25: {tokenizer}.") for tokenizer in sorted(filter(None, known))]


def _judged_apart(page: EvaluationPage, dataset: str) -> bool:
    """Whether what was not judged might decide."""
    shares = [of_model[dataset] for of_model in page.unjudged_at_10.values()]
    return max(shares) - min(shares) > _APART


def _scores_table(spec: EvaluateSpec, page: EvaluationPage) -> Table:
    several = len(page.datasets) > 1
    rows = []
    for name in [*page.datasets, *(["mean"] if several else [])]:
        for model in page.models:
            of_model = page.mean[model] if name == "mean" and several else page.scores[model][name]
            unjudged = "" if name == "mean" else f"{page.unjudged_at_10[model][name]:.0%}"
            rows.append([name, model, *(_number(of_model.get(m)) for m in spec.metrics), unjudged])
        if name in page.candidates:
            given = page.candidates[name]
            rows.append(
                [name, "(the candidates as they came)", *(_number(given.get(m)) for m in spec.metrics), ""]
            )
    return Table(["dataset", "model", *spec.metrics, "unjudged@10"], rows, words=2)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _comparison_blocks(
    spec: EvaluateSpec, found: Evaluated, compared: list[Compared], folder: Path
) -> list[Block]:
    if not compared:
        return []
    blocks: list[Block] = [
        Heading("Is it luck?"),
        Table(
            ["model", "dataset", "metric", "outcome", "change", "95 % interval", "p", "won", "lost", "tied"],
            [
                [
                    item.model,
                    item.dataset,
                    item.metric,
                    item.outcome,
                    f"{item.comparison.difference:+.4f}",
                    f"{item.comparison.low:+.4f} to {item.comparison.high:+.4f}",
                    format_p_value(item.comparison, item.corrected).removeprefix("= "),
                    *(f"{getattr(item.comparison, name):,}" for name in ("wins", "losses", "ties")),
                ]
                for item in compared
            ],
            words=4,
        ),
        Text(
            f"Paired randomisation test with {spec.significance.permutations:,} permutations, p-values "
            "corrected over the comparisons of a metric (Holm), by which the outcome goes. Intervals are by "
            "bootstrap over queries, and of each comparison alone."
        ),
    ]
    metric = found.leading(spec.metrics)
    leading = [item for item in compared if item.metric == metric]
    plot_intervals(
        [
            (
                f"{item.model}, {item.dataset}",
                item.comparison.difference,
                item.comparison.low,
                item.comparison.high,
                item.tone,
            )
            for item in leading
        ],
        f"change of {metric}",
        folder / "differences.png",
    )
    blocks.append(Figure("differences.png", f"Change of {metric} with its 95 % interval"))
    *others, baseline = found.models
    gains = {
        f"{model}, {named.name}": _gains(
            found.results[model, named.name].scores.by_query.get(metric, {}),
            found.results[baseline, named.name].scores.by_query.get(metric, {}),
        )
        for model in others
        for named in found.sets[:5]
    }
    plot_gains(gains, f"change of {metric}", folder / "gains.png")
    blocks.append(
        Figure("gains.png", f"Change of {metric} of every query, from the most won to the most lost")
    )
    return blocks


def _gains(ours: Mapping[str, float], theirs: Mapping[str, float]) -> np.ndarray:
    return np.array([ours[query] - theirs[query] for query in ours.keys() & theirs.keys()])


def _category_blocks(page: EvaluationPage) -> list[Block]:
    blocks: list[Block] = []
    metric = page.leading
    for name in page.datasets:
        of_models = {model: found.get(name, {}) for model, found in page.categories.items()}
        categories = sorted({category for found in of_models.values() for category in found})
        if not categories:
            continue
        first = next(iter(of_models.values()))
        rows = [
            [
                category,
                f"{first[category].queries:,}",
                *(
                    _number(found[category].means.get(metric) if category in found else None)
                    for found in of_models.values()
                ),
            ]
            for category in categories
        ]
        blocks += [
            Heading(f"{name} by category", 3),
            Table(["category", "queries", *(f"{model}, {metric}" for model in of_models)], rows),
        ]
    return blocks


def _size_blocks(spec: EvaluateSpec, page: EvaluationPage) -> list[Block]:
    blocks: list[Block] = []
    ranked = ranking_metrics(spec.metrics)
    for model in page.models:
        for name in page.datasets:
            found = page.precisions[model].get(name, [])
            stored, documents = page.stored[model][name], page.datasets[name].documents
            if found:
                rows = [
                    StoredAs(
                        f"{variant.precision}, {variant.dimension} dimensions"
                        + (", rescored" if variant.rescored else ""),
                        variant.bytes_per_vector,
                        [_number(variant.means[metric]) for metric in ranked],
                    )
                    for variant in found
                ]
            elif stored:
                scores = page.scores[model][name]
                rows = [
                    StoredAs(
                        stored.index or "float32",
                        stored.bytes / max(1, documents),
                        [_number(scores[metric]) for metric in ranked],
                    )
                ]
            else:
                continue
            blocks += [Heading(f"{model} on {name}", 3), Sizes(ranked, rows)]
    return [Heading("What it takes to keep"), *blocks] if blocks else []


def _latency_blocks(page: EvaluationPage) -> list[Block]:
    rows = [
        [model, name, part, f"{found.median:.2f}", f"{found.p95:.2f}"]
        for model, of_model in page.latency_ms.items()
        for name, parts in of_model.items()
        for part, found in parts.items()
    ]
    if not rows:
        return []
    return [
        Heading("Latency of a query, ms"),
        Table(["model", "dataset", "part", "median", "95 %"], rows, words=3),
    ]


def _ranking_plots(found: Evaluated, folder: Path) -> list[Block]:
    """How much is found by which depth, and how scores tell relevant from other documents."""
    datasets = {named.name: named.dataset for named in found.sets}
    blocks: list[Block] = []
    curves = {}
    for (model, name), result in found.results.items():
        run = result.ranking.run
        deepest = max(map(len, run.values()), default=0)
        depths = [depth for depth in _DEPTHS if depth <= deepest]
        if depths:
            scores = evaluate_run(datasets[name].qrels, run, [f"recall@{depth}" for depth in depths])
            curves[f"{model}, {name}"] = [(depth, mean(scores[f"recall@{depth}"])) for depth in depths]
    if curves:
        plot_by_depth(curves, "recall", folder / "recall.png")
        blocks.append(Figure("recall.png", "Share of the relevant documents by how many are looked at"))
    for number, ((model, name), result) in enumerate(list(found.results.items())[:6]):
        values = _scores_by_relevance(result.ranking.run, datasets[name])
        if len(result.positives):
            values = {"relevant": result.positives, "judged irrelevant": result.negatives}
        if any(map(len, values.values())):
            file = f"scores-{number}.png"
            plot_histograms(values, "score", folder / file)
            blocks.append(Figure(file, f"Scores of {model} on {name}"))
    return [Heading("Rankings"), *blocks] if blocks else []


def _scores_by_relevance(
    run: Mapping[str, Mapping[str, float]], dataset: RetrievalSet
) -> dict[str, np.ndarray]:
    """Of the documents found: those that are relevant, and of each query the best that is not."""
    relevant, others = [], []
    for query, documents in run.items():
        grades = dataset.qrels.get(query, {})
        relevant += [score for name, score in documents.items() if grades.get(name, 0) > 0]
        others.append(max((s for name, s in documents.items() if grades.get(name, 0) <= 0), default=np.nan))
    kept = np.array(others)
    return {"relevant documents": np.array(relevant), "best others": kept[np.isfinite(kept)]}


def _example_blocks(page: EvaluationPage) -> list[Block]:
    blocks: list[Block] = []
    for name, examples in page.examples.items():
        for example in examples:
            values = ", ".join(f"{model} {value:.3f}" for model, value in example.values.items())
            items = [
                f"relevant, {document.id} (grade {document.grade}): {document.text}"
                for document in example.relevant
            ]
            for model, first in example.first.items():
                if first is None:
                    items.append(f"{model} found nothing")
                    continue
                grade = "not judged" if first.grade is None else f"grade {first.grade}"
                items.append(f"{model} put first, {first.id} ({grade}): {first.text}")
            title = f"{shorten(example.query, 120, placeholder=' ...')} ({name}, {example.metric}: {values})"
            blocks.append(Details(title, [Listing(items)]))
    return [Heading("Queries won and lost"), *blocks] if blocks else []
