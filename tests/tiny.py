"""Tiny real models, built in a second."""

import tempfile
from pathlib import Path
from typing import Any

WORDS = ["river", "mountain", "engine", "garden", "winter", "bridge", "copper", "signal", "planet", "harbor"]
WORDS += [
    "kitchen",
    "thunder",
    "window",
    "market",
    "forest",
    "castle",
    "mirror",
    "pepper",
    "ladder",
    "candle",
]
WORDS += ["button", "saddle", "anchor", "basket", "tunnel", "violin"]


def bare_tokenizer() -> Any:
    """Whole words, else letters, of `WORDS`; of the library `tokenizers`, without special tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # Written out and not trained: a trainer breaks ties differently in each process.
    words = [*WORDS, "what", "is", "the", "a", "of", "and", "document", "in", "on", *"0123456789"]
    letters = sorted(set("".join(words)))
    pieces = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *words])
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def make_static(folder: Path, *, seed: int = 0, dimension: int = 32, normalized: bool = False) -> Path:
    """Saves static embeddings as a sentence-transformers folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, StaticEmbedding

    tokenizer = bare_tokenizer()
    torch.manual_seed(seed)
    table = StaticEmbedding(tokenizer, embedding_weights=torch.randn(tokenizer.get_vocab_size(), dimension))
    modules = [table, Normalize()] if normalized else [table]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder), create_model_card=False)
    return folder


def make_model(
    folder: Path, *, dropout: float = 0.1, seed: int = 0, hidden: int = 32, layers: int = 2
) -> Path:
    """Saves a BERT with mean pooling as a sentence-transformers folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from tokenizers import processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    tokenizer = bare_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
    )
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=400,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=128,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    bare = folder.with_name(f"{folder.name}-bare")
    BertModel(config).save_pretrained(bare)
    fast.save_pretrained(bare)
    transformer = Transformer(str(bare), max_seq_length=64)
    model = SentenceTransformer(modules=[transformer, Pooling(hidden, pooling_mode="mean")], device="cpu")
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def token_rows(
    tokenizer: Any, rows: list[dict[str, Any]], prompts: Any = None, guide: Any = None
) -> list[Any]:
    """Rows of texts as the collators get them. ``guide`` is another tokenizer for the same texts."""
    import pyarrow as pa

    from core.data.training_rows.table import SCHEMA
    from core.engine.token_table import TokenTable, tokens_of_table
    from core.spec.train import Prompts

    table = pa.Table.from_pylist([{"scores": [], **row} for row in rows], schema=SCHEMA)

    def of(used: Any, put_in_front: Prompts, also: TokenTable | None = None) -> TokenTable:
        with tempfile.TemporaryDirectory() as folder:
            found, _ = tokens_of_table(table, "these", used, put_in_front, context=512, cache=Path(folder))
            return TokenTable(found, also)  # stays readable: its files are mapped

    tokens = of(tokenizer, prompts or Prompts(), of(guide, Prompts()) if guide else None)
    return [tokens.row(index) for index in range(len(tokens))]


def make_cross_encoder(folder: Path, bi_encoder: Path, *, labels: int = 1) -> Path:
    """Saves a BERT that reads two texts, with the tokenizer and the words of a tiny bi-encoder."""
    import torch
    from tokenizers import processors
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(bi_encoder)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    torch.manual_seed(5)
    config = BertConfig.from_pretrained(bi_encoder, num_labels=labels)
    # Weights that tell pairs apart: those of a fresh BERT all come out the same.
    config.initializer_range = 0.5
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_colbert(folder: Path, bi_encoder: Path) -> Path:
    """Saves a tiny bi-encoder as PyLate's ColBERT: 16 dimensions a token."""
    settings: dict[str, Any] = {"embedding_size": 16, "query_length": 16, "document_length": 48}
    try:
        from pylate.models import ColBERT
    except ImportError:  # the other stack of libraries has none
        from core.families.late_interaction.colbert import read_colbert as ColBERT  # noqa: N812

    model = ColBERT(str(bi_encoder), device="cpu", **settings)
    model.save_pretrained(str(folder))
    return folder


def make_modernbert(folder: Path, words_of: Path) -> Path:
    """Saves a ModernBERT of two layers, with the tokenizer of a tiny bi-encoder."""
    import torch
    from transformers import AutoTokenizer, ModernBertConfig, ModernBertModel

    tokenizer = AutoTokenizer.from_pretrained(words_of)
    torch.manual_seed(7)
    config = ModernBertConfig(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
        global_attn_every_n_layers=2,
        local_attention=16,
        pad_token_id=tokenizer.pad_token_id,
        cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        reference_compile=False,
    )
    ModernBertModel(config).save_pretrained(folder)
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(folder)
    return folder
