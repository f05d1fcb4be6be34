"""Tiny random models in the configurations of today's well-known ones: the same classes, modules, prompts."""

import json
from pathlib import Path
from typing import Any

from tests.tiny import bare_tokenizer

QWEN3_PROMPTS = {"query": "Instruct: Given a web search query\nQuery: ", "document": ""}
GEMMA_PROMPTS = {"query": "task: search result | query: ", "document": "title: none | text: "}


def tokenizer_of(
    *, ends: bool = False, left: bool = False, eos: str = "[SEP]", more: tuple[str, ...] = ()
) -> Any:
    """``ends``: only a last token is put to a text; ``left``: padding stands before it."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = bare_tokenizer()
    around = "$A [SEP]" if ends else "[CLS] $A [SEP]"
    pair = f"{around} $B [SEP]"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=around, pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        eos_token=eos,
        model_max_length=128,
        padding_side="left" if left else "right",
    )
    if more:
        fast.add_tokens(list(more), special_tokens=True)
    return fast


def save_transformer(folder: Path, model: Any, tokenizer: Any) -> Path:
    """Of transformers alone, with weights that are no longer those of an initialisation."""
    import torch

    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_bi_encoder(
    folder: Path, bare: Path, pooling: str, *after: Any, prompts: dict[str, str] | None = None
) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    transformer = Transformer(str(bare), max_seq_length=64)
    width = transformer.get_word_embedding_dimension()
    model = SentenceTransformer(
        modules=[transformer, Pooling(width, pooling_mode=pooling), *after], device="cpu", prompts=prompts
    )
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def qwen3(causal: bool = False) -> Any:
    import transformers

    config = transformers.Qwen3Config(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    return transformers.Qwen3ForCausalLM(config) if causal else transformers.Qwen3Model(config)


def qwen3_embedding(folder: Path) -> Path:
    """The last token's vector, padding on the left, an instruction before queries."""
    from sentence_transformers.models import Normalize

    tokenizer = tokenizer_of(ends=True, left=True)
    bare = save_transformer(folder.with_name(f"{folder.name}-bare"), qwen3(), tokenizer)
    return save_bi_encoder(folder, bare, "lasttoken", Normalize(), prompts=QWEN3_PROMPTS)


def embedding_gemma(folder: Path) -> Path:
    """A bidirectional Gemma, two dense modules after the mean, prompts before both roles."""
    import torch
    from sentence_transformers.models import Dense, Normalize
    from transformers import Gemma3TextConfig, Gemma3TextModel

    config = Gemma3TextConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=128,
        sliding_window=16,
        use_bidirectional_attention=True,
    )
    bare = save_transformer(folder.with_name(f"{folder.name}-bare"), Gemma3TextModel(config), tokenizer_of())
    linear = torch.nn.Identity()
    modules = [
        Dense(32, 48, bias=False, activation_function=linear),
        Dense(48, 32, bias=False, activation_function=linear),
    ]
    return save_bi_encoder(folder, bare, "mean", *modules, Normalize(), prompts=GEMMA_PROMPTS)


def modernbert(folder: Path) -> Path:
    from transformers import ModernBertConfig, ModernBertModel

    config = ModernBertConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        global_attn_every_n_layers=2,
        local_attention=16,
        pad_token_id=0,
        cls_token_id=2,
        sep_token_id=3,
        bos_token_id=2,
        eos_token_id=3,
    )
    bare = save_transformer(folder.with_name(f"{folder.name}-bare"), ModernBertModel(config), tokenizer_of())
    return save_bi_encoder(folder, bare, "cls")


def xlm_roberta(folder: Path) -> Path:
    """E5-like: two positions fewer than its table, prompts."""
    from sentence_transformers.models import Normalize
    from transformers import XLMRobertaConfig, XLMRobertaModel

    config = XLMRobertaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=130,
        pad_token_id=0,
    )
    bare = save_transformer(folder.with_name(f"{folder.name}-bare"), XLMRobertaModel(config), tokenizer_of())
    prompts = {"query": "query: ", "passage": "passage: "}
    return save_bi_encoder(folder, bare, "mean", Normalize(), prompts=prompts)


def t5_encoder(folder: Path) -> Path:
    """GTR-like: the encoder of a T5, a dense module, no positions of its own."""
    import torch
    from sentence_transformers.models import Dense, Normalize
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=128, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    tokenizer = tokenizer_of(ends=True)
    bare = save_transformer(folder.with_name(f"{folder.name}-bare"), T5EncoderModel(config), tokenizer)
    dense = Dense(32, 24, bias=False, activation_function=torch.nn.Identity())
    return save_bi_encoder(folder, bare, "mean", dense, Normalize())


def bge_reranker(folder: Path) -> Path:
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    config = XLMRobertaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=130,
        pad_token_id=0,
        num_labels=1,
    )
    return save_transformer(folder, XLMRobertaForSequenceClassification(config), tokenizer_of())


def qwen3_reranker(folder: Path) -> Path:
    tokenizer = tokenizer_of(more=("<|im_start|>", "<|im_end|>", "yes", "no"))
    tokenizer.model_max_length = 512
    return save_transformer(folder, qwen3(causal=True), tokenizer)


def foreign_code(folder: Path, plain: Path) -> Path:
    """NomicBERT-like: a configuration that names code of its own folder."""
    import shutil

    shutil.copytree(plain, folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_hf_nomic_bert.NomicBertModel"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_hf_nomic_bert.py").write_text("raise SystemExit('this code must not run')\n")
    return folder
