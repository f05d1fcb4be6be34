"""What another version of sentence-transformers saves and reads: `benchmarks.versions` runs it there.

``make BASE FOLDER`` saves a model of each family that the version knows; ``read FAMILY FOLDER`` prints what
it gives for `TEXTS`, as JSON on the last line.
"""

import json
import sys
from pathlib import Path
from typing import Any

TEXTS = ["what is the river", "The BRIDGE of copper and a violin", "document 7"]
QUERY = "what is a river"
FAMILIES = ("dense", "cross_encoder", "static", "late_interaction")


def make(base: str, folder: Path) -> None:
    import torch
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from sentence_transformers.models import Dense, Normalize, Pooling, StaticEmbedding, Transformer

    torch.manual_seed(7)
    prompts = {"query": "a ", "document": "the "}
    modules = [
        Transformer(base, max_seq_length=32),
        Pooling(32, pooling_mode="cls"),
        Dense(32, 16),
        Normalize(),
    ]
    dense = SentenceTransformer(modules=modules, device="cpu", prompts=prompts)
    dense.save_pretrained(str(folder / "dense"))
    scorer = CrossEncoder(base, num_labels=1, device="cpu", activation_fn=torch.nn.Tanh())
    for parameter in scorer.model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    scorer.save_pretrained(str(folder / "cross_encoder"))
    tokenizer = Transformer(base).tokenizer
    table = StaticEmbedding(tokenizer, embedding_weights=torch.randn(len(tokenizer), 16))
    SentenceTransformer(modules=[table], device="cpu").save_pretrained(str(folder / "static"))
    if found := _late_interaction():
        _make_late_interaction(found, base, folder / "late_interaction")


def _late_interaction() -> str | None:
    """Which class of this interpreter knows late interaction, if any."""
    import importlib.util

    import sentence_transformers

    if hasattr(sentence_transformers, "MultiVectorEncoder"):
        return "MultiVectorEncoder"
    pylate = importlib.util.find_spec("pylate") and sentence_transformers.__version__ == "5.3.0"
    return "PyLate" if pylate else None


def _make_late_interaction(kind: str, base: str, folder: Path) -> None:
    if kind == "PyLate":
        from pylate.models import ColBERT

        model: Any = ColBERT(base, embedding_size=16, query_length=12, document_length=24, device="cpu")
    else:
        import torch
        from sentence_transformers import MultiVectorEncoder
        from sentence_transformers.models import Dense, Normalize, Transformer
        from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

        expansion = {"strategy": "fixed", "attend": False, "length": 12}
        names = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
        model = MultiVectorEncoder(
            modules=[
                Transformer(base, document_length=24, query_expansion=expansion),
                Dense(32, 16, bias=False, activation_function=torch.nn.Identity(), **names),
                MultiVectorMask(skiplist_words=["of"]),
                Normalize(module_input_name="token_embeddings"),
            ],
            device="cpu",
            prompts={"query": "what ", "document": "the "},
        )
    model.save_pretrained(str(folder))


def read(family: str, folder: str) -> Any:
    """Numbers for `TEXTS`: vectors as queries and as documents, or scores with `QUERY`; None where the
    version does not know the family."""
    from sentence_transformers import CrossEncoder, SentenceTransformer

    if family == "cross_encoder":
        scores = CrossEncoder(folder, device="cpu").predict([(QUERY, text) for text in TEXTS])
        return [float(score) for score in scores]
    if family == "late_interaction":
        return _read_late_interaction(folder)
    model = SentenceTransformer(folder, device="cpu")
    return [
        encode(TEXTS, normalize_embeddings=True).tolist()
        for encode in (model.encode_query, model.encode_document)
    ]


def _read_late_interaction(folder: str) -> Any:
    kind = _late_interaction()
    if kind is None:
        return None
    if kind == "PyLate":
        from pylate.models import ColBERT

        model: Any = ColBERT(folder, device="cpu")
        both = []
        for role in ("query", "document"):
            texts = [(model.prompts.get(role) or "") + text for text in TEXTS]
            both.append([found.tolist() for found in model.encode(texts, is_query=role == "query")])
        return both
    from sentence_transformers import MultiVectorEncoder

    model = MultiVectorEncoder(folder, device="cpu")
    return [
        [found.tolist() for found in encode(TEXTS)] for encode in (model.encode_query, model.encode_document)
    ]


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], Path(sys.argv[3]))
    else:
        print(json.dumps(read(sys.argv[2], sys.argv[3])))
