"""Each loss against its definition, written out slowly, and against sentence-transformers."""

import math

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.losses import (
    CoSENTLoss,
    CosineSimilarityLoss,
    DistillKLDivLoss,
    MarginMSELoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)

from core.engine.batching import Packing
from core.engine.encoding import encode_micro_batches
from core.engine.losses import (
    CoSENT,
    Distillation,
    Layout,
    MarginMSE,
    MultipleNegativesRanking,
    Regression,
    find_false_negatives,
)
from core.engine.tokens import Frame
from core.families.collator import Collator
from core.families.dense import Objective, Reader, similarities
from core.spec.parts.training import Guide, Matryoshka
from core.spec.train import Prompts
from tests.tiny import WORDS, make_model, token_rows

# Two queries; documents: their positives, two negatives of the first, one of the second.
SIMILARITIES = torch.tensor([[0.9, 0.1, 0.3, 0.95, -0.2], [0.4, 0.5, 0.2, 0.1, 0.45]])
OWNERS = torch.tensor([0, 1, 0, 0, 1])
TEACHER = torch.tensor([5.0, 3.0, 1.0, 4.5, 2.0])
LAYOUT = Layout(2, OWNERS, TEACHER)


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def test_mnrl_with_hard_negatives_of_any_number():
    rows = [[value / 0.5 for value in row] for row in SIMILARITIES.tolist()]
    wanted = -sum(math.log(softmax(row)[index]) for index, row in enumerate(rows)) / 2
    assert MultipleNegativesRanking(0.5)(SIMILARITIES, LAYOUT).item() == pytest.approx(wanted, rel=1e-6)


def test_margin_mse():
    scores = [[value / 0.5 for value in row] for row in SIMILARITIES.tolist()]
    wanted = [
        (scores[0][0] - scores[0][2]) - (5 - 1),
        (scores[0][0] - scores[0][3]) - (5 - 4.5),
        (scores[1][1] - scores[1][4]) - (3 - 2),
    ]
    loss = MarginMSE(0.5)(SIMILARITIES, LAYOUT).item()
    assert loss == pytest.approx(sum(value**2 for value in wanted) / 3, rel=1e-6)


def test_distillation_over_own_documents_alone():
    total = 0.0
    for query, columns in ((0, [0, 2, 3]), (1, [1, 4])):
        student = softmax([SIMILARITIES[query, column].item() / 0.5 for column in columns])
        teacher = softmax([TEACHER[column].item() / 2 for column in columns])
        total += sum(p * math.log(p / q) for p, q in zip(teacher, student, strict=True))
    similarities = SIMILARITIES.clone().requires_grad_()
    loss = Distillation(0.5, 2.0)(similarities, LAYOUT)
    assert loss.item() == pytest.approx(total / 2, rel=1e-5)
    loss.backward()
    assert torch.isfinite(similarities.grad).all()
    assert similarities.grad[1, 0] == 0  # not its own document


@pytest.mark.parametrize(
    ("guide", "masked"),
    [
        # The first query's negative at 0.95 lies above its positive at 0.9.
        (Guide(model="file:x"), {(0, 3)}),
        (Guide(model="file:x", margin=0.06), {(0, 3), (1, 4)}),
        (Guide(model="file:x", margin=0.15, relative=True), {(0, 3), (1, 4)}),
    ],
)
def test_what_the_guide_finds_closer_than_the_positive_is_no_negative(guide, masked):
    found = find_false_negatives(SIMILARITIES, guide)
    assert {tuple(place) for place in found.of_queries.nonzero().tolist()} == masked
    assert found.share == pytest.approx(len(masked) / 8)
    kept = [
        [value / 0.5 for column, value in enumerate(row) if (query, column) not in masked]
        for query, row in enumerate(SIMILARITIES.tolist())
    ]
    wanted = -sum(math.log(softmax(row)[index]) for index, row in enumerate(kept)) / 2
    loss = MultipleNegativesRanking(0.5)(SIMILARITIES, LAYOUT, found)
    assert loss.item() == pytest.approx(wanted, rel=1e-6)


def test_a_relative_margin_lowers_the_bar_of_a_negative_similarity_too():
    similarities = torch.tensor([[-0.5, -0.52], [-0.9, 0.3]])
    found = find_false_negatives(similarities, Guide(model="file:x", margin=0.1, relative=True))
    assert found.of_queries.tolist() == [[False, True], [False, False]]


ROWS = [
    {
        "query": f"what is {WORDS[index]}",
        "positive": " ".join(WORDS[index : index + 1 + index % 9]),
        "negatives": [WORDS[-1 - index] + " answer"],
        "scores": [float(index), float(index % 3)],
    }
    for index in range(10)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> SentenceTransformer:
    folder = make_model(tmp_path_factory.mktemp("models") / "steady", dropout=0.0)
    return SentenceTransformer(str(folder), device="cpu")


def compare(model, objective: Objective, theirs, labels=None, *, columns=("query", "positive", "negative")):
    """Loss and gradients of ours and of sentence-transformers' on the same rows."""
    rows = [{**row, "negative": row["negatives"][0]} for row in ROWS]
    features = [model.tokenize([row[column] for row in rows]) for column in columns]
    expected = theirs(features, labels)
    wanted = gradients(model, expected)
    collator = Collator(Reader(Frame.of(model.tokenizer), 512), {"query": 64, "document": 64}, Packing(64))
    batch = collator(token_rows(model.tokenizer, ROWS))
    ours = objective(encode_micro_batches(model, batch.texts), batch)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)
    for mine, other in zip(gradients(model, ours), wanted, strict=True):
        assert torch.allclose(mine, other, atol=1e-4)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def test_matryoshka_equals_theirs(model):
    loss = MatryoshkaLoss(
        model, MultipleNegativesRankingLoss(model), [32, 16, 8], matryoshka_weights=[1.0, 0.5, 0.25]
    )
    cuts = Matryoshka(dimensions=[16, 8], weights=[0.5, 0.25])
    compare(model, Objective(MultipleNegativesRanking(0.05), matryoshka=cuts), loss)


def test_margin_mse_equals_theirs(model):
    labels = torch.tensor([row["scores"][0] - row["scores"][1] for row in ROWS])
    compare(model, Objective(MarginMSE(1.0), cosine=False), MarginMSELoss(model), labels)


def test_distillation_equals_theirs(model):
    labels = torch.tensor([row["scores"] for row in ROWS])
    compare(
        model,
        Objective(Distillation(1.0, 1.0), cosine=False),
        DistillKLDivLoss(model, temperature=1.0),
        labels,
    )


def test_the_guide_reads_the_batch_with_its_own_tokenizer_and_is_not_trained(model, tmp_path):
    guide = SentenceTransformer(str(make_model(tmp_path / "guide", dropout=0.0)), device="cpu")
    guide.eval().requires_grad_(False)
    collator = Collator(
        Reader(Frame.of(model.tokenizer), 512),
        {"query": 16, "document": 32},
        Packing(64),
        guide=(Frame.of(guide.tokenizer), 64, Packing(64)),
    )
    batch = collator(token_rows(model.tokenizer, ROWS, Prompts(query="find: "), guide.tokenizer))
    objective = Objective(MultipleNegativesRanking(0.05), guide=(guide, Guide(model="file:x", margin=1.0)))
    embeddings = encode_micro_batches(model, batch.texts)
    loss = objective(embeddings, batch)
    assert 0 < objective.masked_share <= 1
    assert list(objective.parameters()) == []
    texts = [row["query"] for row in ROWS] + [row["positive"] for row in ROWS]
    texts += [row["negatives"][0] for row in ROWS]
    theirs = torch.from_numpy(guide.encode(texts))
    found = find_false_negatives(
        similarities(theirs, len(ROWS), cosine=True), Guide(model="file:x", margin=1.0)
    )
    layout = batch.layout
    expected = MultipleNegativesRanking(0.05)(similarities(embeddings, len(ROWS), cosine=True), layout, found)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["cosent", "regression"])
def test_losses_of_pair_scores_equal_sentence_transformers(model, name):
    rows = [
        {"query": row["query"], "positive": row["positive"], "scores": [(7 * index % 10) / 10]}
        for index, row in enumerate(ROWS)
    ]
    theirs = CoSENTLoss(model, scale=20.0) if name == "cosent" else CosineSimilarityLoss(model)
    features = [model.tokenize([row[column] for row in rows]) for column in ("query", "positive")]
    expected = theirs(features, torch.tensor([row["scores"][0] for row in rows]))
    wanted = gradients(model, expected)
    collator = Collator(Reader(Frame.of(model.tokenizer), 512), {"query": 64, "document": 64}, Packing(64))
    batch = collator(token_rows(model.tokenizer, rows))
    objective = Objective(CoSENT(0.05) if name == "cosent" else Regression(logits=False))
    ours = objective(encode_micro_batches(model, batch.texts), batch)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)
    for mine, other in zip(gradients(model, ours), wanted, strict=True):
        assert torch.allclose(mine, other, atol=1e-4)


def test_equal_scores_leave_nothing_to_rank():
    similarities = SIMILARITIES.clone().requires_grad_()
    loss = CoSENT(0.05)(similarities, Layout(2, OWNERS, torch.ones(5)))
    loss.backward()
    assert loss.item() == 0
    assert similarities.grad.abs().sum() == 0
