"""Losses over a batch's similarities. They know no model: every family that can score a query against a
document uses the same ones.

A batch has ``queries`` queries and at least as many documents: first the positives, in the order of their
queries, then everybody's negatives. Similarities are [queries, documents].
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from core.spec.parts.training import Guide, Loss


@dataclass(frozen=True)
class Layout:
    """Which document is whose."""

    queries: int
    owners: torch.Tensor  # [documents]: the query that each document was given with
    teacher: torch.Tensor | None = None  # [documents]: a teacher's score of each with its query

    def own(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(columns, present), both [queries, most documents of one]: the positive first, then negatives."""
        order = torch.argsort(self.owners, stable=True)
        counts = torch.bincount(self.owners, minlength=self.queries)
        within = torch.arange(len(order), device=order.device) - torch.repeat_interleave(
            counts.cumsum(0) - counts, counts
        )
        columns = order.new_zeros(self.queries, int(counts.max()))
        present = torch.zeros_like(columns, dtype=torch.bool)
        columns[self.owners[order], within] = order
        present[self.owners[order], within] = True
        return columns, present


class MultipleNegativesRanking(nn.Module):
    """Cross entropy of each query's positive against every document of the batch.

    van den Oord et al. 2018 (arXiv 1807.03748), Henderson et al. 2017 (arXiv 1705.00652). With
    ``symmetric`` also of each positive's own query against every query, and the mean of the two.
    """

    def __init__(self, temperature: float, *, symmetric: bool = False) -> None:
        super().__init__()
        self.temperature, self.symmetric = temperature, symmetric

    def forward(
        self, similarities: torch.Tensor, layout: Layout, false_negatives: "FalseNegatives | None" = None
    ) -> torch.Tensor:
        count = layout.queries
        scores = (similarities / self.temperature).float()
        positives = torch.arange(count, device=scores.device)
        forward = scores
        if false_negatives is not None:
            forward = scores.masked_fill(false_negatives.of_queries, -torch.inf)
        loss = functional.cross_entropy(forward, positives)
        if self.symmetric:
            backward = scores[:, :count].T
            if false_negatives is not None:
                backward = backward.masked_fill(false_negatives.of_positives, -torch.inf)
            loss = (loss + functional.cross_entropy(backward, positives)) / 2
        return loss


class MarginMSE(nn.Module):
    """Squared error between the student's and the teacher's lead of the positive over each negative.

    Hofstätter et al. 2020 (arXiv 2010.02666). The student's scores are similarities over temperature.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, similarities: torch.Tensor, layout: Layout) -> torch.Tensor:
        assert layout.teacher is not None
        columns, present = layout.own()
        student = (similarities / self.temperature).float().gather(1, columns)
        teacher = layout.teacher[columns]
        errors = (student[:, :1] - student[:, 1:]) - (teacher[:, :1] - teacher[:, 1:])
        return errors[present[:, 1:]].square().mean()


class Distillation(nn.Module):
    """Kullback-Leibler divergence of student from teacher, over each query's own documents.

    As in ColBERTv2 (Santhanam et al. 2021, arXiv 2112.01488). ``teacher_temperature`` flattens the teacher.
    """

    def __init__(self, temperature: float, teacher_temperature: float) -> None:
        super().__init__()
        self.temperature, self.teacher_temperature = temperature, teacher_temperature

    def forward(self, similarities: torch.Tensor, layout: Layout) -> torch.Tensor:
        assert layout.teacher is not None
        columns, present = layout.own()
        # A finite stand-in for minus infinity: 0 * -inf of the padding would be no number.
        lowest = torch.finfo(torch.float32).min
        student = (similarities / self.temperature).float().gather(1, columns).masked_fill(~present, lowest)
        teacher = (layout.teacher[columns] / self.teacher_temperature).float().masked_fill(~present, lowest)
        return functional.kl_div(
            student.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="batchmean"
        )


@dataclass(frozen=True)
class FalseNegatives:
    """What a guide takes for relevant, and so must not be pushed away."""

    of_queries: torch.Tensor  # [queries, documents], bool
    of_positives: torch.Tensor  # [queries (as positives), queries], bool

    @property
    def share(self) -> float:
        """Of all pairs of a query and a document that is not its positive."""
        return float(self.of_queries.sum()) / max(self.of_queries.numel() - len(self.of_queries), 1)


def find_false_negatives(similarities: torch.Tensor, guide: Guide) -> FalseNegatives:
    """Documents that the guide finds as close to the query as its own positive, less the margin.

    After GISTEmbed (Solatorio 2024, arXiv 2402.16829). ``similarities`` [queries, documents] are the guide's.
    """
    count = len(similarities)
    own = similarities[:, :count].diagonal()
    # Relative margins must lower the bar for negative similarities as well.
    bar = own - (guide.margin * own.abs() if guide.relative else guide.margin)
    of_queries = similarities > bar[:, None]
    of_positives = bar[:, None] < similarities[:, :count].T
    of_queries[:, :count].fill_diagonal_(False)
    of_positives.fill_diagonal_(False)
    return FalseNegatives(of_queries, of_positives)


class BinaryCrossEntropy(nn.Module):
    """Of every scored pair by itself: the positive is one, all others are none."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, similarities: torch.Tensor, layout: Layout) -> torch.Tensor:
        logits = (similarities / self.temperature).float()
        wanted = torch.zeros_like(logits)
        wanted[:, : layout.queries].fill_diagonal_(1.0)
        scored = similarities > -torch.inf
        return functional.binary_cross_entropy_with_logits(logits[scored], wanted[scored])


class LambdaRank(nn.Module):
    """Pairwise logistic loss of the positive against each scored negative, weighed by what their exchange
    would do to nDCG: NDCG-Loss2++ with mu = 10 (Wang et al. 2018, CIKM, "The LambdaLoss Framework for Ranking
    Metric Optimization").
    """

    _MU = 10.0

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, similarities: torch.Tensor, layout: Layout) -> torch.Tensor:
        scores = (similarities / self.temperature).float()
        present = scores > -torch.inf
        own = scores[:, : layout.queries].diagonal()[:, None]  # [queries, 1]
        with torch.no_grad():
            ranks = (
                scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1) + 1.0
            )  # [queries, documents]
            of_own = ranks[:, : layout.queries].diagonal()[:, None]
            # With one relevant document the ideal DCG is 1, and so is its gain.
            lambda_rank = (1 / torch.log2(1 + of_own) - 1 / torch.log2(1 + ranks)).abs()
            apart = (of_own - ranks).abs()
            loss2 = (1 / torch.log2(1 + apart) - 1 / torch.log2(2 + apart)).abs()
            weights = lambda_rank + self._MU * loss2
            negatives = present.clone()
            negatives[:, : layout.queries].fill_diagonal_(False)
        leads = (own - scores)[negatives]
        if not len(leads):  # nobody to be told apart from: nothing to learn, and no number either
            return own.sum() * 0
        # -log2(sigmoid(lead) ** weight), as in the paper; the mean, so that more negatives do not weigh more.
        return (functional.softplus(-leads) * weights[negatives]).mean() / math.log(2)


class CoSENT(nn.Module):
    """Rank all pairs of the batch by their scores: log(1 + sum of exp(s_j - s_i) over pairs with a higher
    score of i than of j), where s are similarities over temperature (Su 2022, "CoSENT: a more efficient
    sentence vector scheme than Sentence-BERT", kexue.fm/archives/8847; sentence-transformers' CoSENTLoss).
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, similarities: torch.Tensor, layout: Layout) -> torch.Tensor:
        assert layout.teacher is not None
        scores = _of_own_pairs(similarities, layout).float() / self.temperature  # [documents]
        above = layout.teacher[:, None] > layout.teacher[None, :]  # [documents, documents]
        excess = (scores[None, :] - scores[:, None])[above]
        # With equal scores alone there is nothing to rank: the loss is log(1) and has no gradient.
        return torch.cat([scores.new_zeros(1), excess]).logsumexp(0) + 0 * scores.sum()


class Regression(nn.Module):
    """Squared error between each pair's similarity and its score (sentence-transformers'
    CosineSimilarityLoss). ``logits``: similarities are logits, and go through a sigmoid first."""

    def __init__(self, *, logits: bool) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, similarities: torch.Tensor, layout: Layout) -> torch.Tensor:
        assert layout.teacher is not None
        scores = _of_own_pairs(similarities, layout).float()  # [documents]
        return functional.mse_loss(scores.sigmoid() if self.logits else scores, layout.teacher.float())


def _of_own_pairs(similarities: torch.Tensor, layout: Layout) -> torch.Tensor:
    """similarities [queries, documents] -> of each document with its own query [documents]."""
    owners = layout.owners.to(similarities.device)
    return similarities[owners, torch.arange(len(owners), device=similarities.device)]


def make_loss(spec: Loss, *, logits: bool = False) -> nn.Module:
    """The loss that a spec names. ``logits``: it is taken of a cross-encoder's logits."""
    match spec.name:
        case "cosent":
            return CoSENT(spec.temperature)
        case "regression":
            return Regression(logits=logits)
        case "mnrl":
            return MultipleNegativesRanking(spec.temperature, symmetric=spec.symmetric)
        case "margin_mse":
            return MarginMSE(spec.temperature)
        case "distillation":
            return Distillation(spec.temperature, spec.teacher_temperature)
        case "bce":
            return BinaryCrossEntropy(spec.temperature)
        case "lambda":
            return LambdaRank(spec.temperature)
