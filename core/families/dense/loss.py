"""Multiple negatives ranking loss over precomputed embeddings."""

import torch
from torch import nn
from torch.nn import functional


class MultipleNegativesRanking(nn.Module):
    """Cross entropy of each query's own document against every document of the batch.

    van den Oord et al. 2018 (arXiv 1807.03748), Henderson et al. 2017 (arXiv 1705.00652). With
    ``symmetric`` also of each positive's own query against every query, and the mean of the two.
    """

    def __init__(self, temperature: float, *, symmetric: bool = False, cosine: bool = True) -> None:
        super().__init__()
        self.temperature, self.symmetric, self.cosine = temperature, symmetric, cosine

    def forward(self, queries: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
        """queries [batch, dim], documents [batch + negatives, dim] -> a scalar.

        Document ``i`` answers query ``i``; those from ``batch`` on answer nobody.
        """
        if self.cosine:
            queries, documents = (
                functional.normalize(queries, dim=-1),
                functional.normalize(documents, dim=-1),
            )
        scores = queries @ documents.T / self.temperature  # [batch, batch + negatives]
        own = torch.arange(len(queries), device=scores.device)
        loss = functional.cross_entropy(scores.float(), own)
        if self.symmetric:
            loss = (loss + functional.cross_entropy(scores[:, : len(queries)].T.float(), own)) / 2
        return loss
