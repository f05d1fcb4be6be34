"""What of a model is trained: all of it, its last layers, or low-rank adapters on a frozen base.

LoRA: Hu et al. 2021 (arXiv 2106.09685); on a 4-bit base: Dettmers et al. 2023 (arXiv 2305.14314). Adapters
are put into the model's own modules, so that families, checkpoints and losses need not know of them, and are
merged into plain weights before the model is saved: a folder with adapters reloads as zeros through
`SentenceTransformer(path)`.
"""

from typing import Any

import torch
from torch import nn

from core.engine.sharding import gather_tensor, part_of
from core.errors import BadModel, BadSpec
from core.spec.parts.training import LoRA
from core.spec.train import TrainSpec

_ATTENTION = (
    ("query", "key", "value"),  # BERT, RoBERTa, ELECTRA
    ("q_proj", "k_proj", "v_proj", "o_proj"),  # Qwen, Llama, Mistral, Gemma
    ("Wqkv", "Wo"),  # ModernBERT
    ("q_lin", "k_lin", "v_lin", "out_lin"),  # DistilBERT
    ("query_proj", "key_proj", "value_proj"),  # DeBERTa
    ("Wqkv", "out_proj"),  # NomicBERT
    ("q", "k", "v", "o"),  # MPNet, T5
)
"""Names of the attention's projections, by which ``target_modules: auto`` knows a model."""


def linear_names(transformer: nn.Module) -> dict[str, int]:
    """Names of linear layers' last parts, and how many layers have each. Quantized ones count."""
    found: dict[str, int] = {}
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear):
            leaf = name.rpartition(".")[2]
            found[leaf] = found.get(leaf, 0) + 1
    return found


def choose_targets(transformer: nn.Module, asked: LoRA) -> list[str]:
    """The names of the layers that get adapters. Raises `BadModel` or `BadSpec` when there are none."""
    there = linear_names(transformer)
    listed = ", ".join(sorted(there)) or "none"
    if asked.target_modules == "auto":
        for names in _ATTENTION:
            if all(name in there for name in names):
                return list(names)
        raise BadModel(
            "lora.target_modules auto does not know this model's attention. Name some of its linear layers: "
            f"{listed}"
        )
    if missing := [name for name in asked.target_modules if name not in there]:
        raise BadSpec(
            f"lora.target_modules: no linear layer is called {', '.join(missing)}; there are {listed}"
        )
    return list(asked.target_modules)


def add_lora(transformer: nn.Module, asked: LoRA) -> list[str]:
    """Freezes ``transformer`` and puts adapters into it, in place. Returns the names of the layers."""
    from peft import LoraConfig, inject_adapter_in_model  # imports bitsandbytes, which initialises CUDA

    targets = choose_targets(transformer, asked)
    config = LoraConfig(
        r=asked.r, lora_alpha=asked.alpha, lora_dropout=asked.dropout, target_modules=targets, bias="none"
    )
    transformer.requires_grad_(False)
    inject_adapter_in_model(config, transformer)
    return targets


class NewWords(nn.Module):
    """A frozen table of words, some rows of which are new and so must be trained: else [Q] and [D] of a
    late-interaction model would stay what they were drawn as."""

    def __init__(self, table: nn.Embedding, words: list[int]) -> None:
        super().__init__()
        self.table = table
        self.register_buffer("words", torch.tensor(words), persistent=False)
        self.rows = nn.Parameter(table.weight.detach()[words].clone())  # [words, dim]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        found = self.table(ids)
        for word, row in zip(self.words, self.rows, strict=True):
            found = torch.where((ids == word)[..., None], row.to(found.dtype), found)
        return found

    def plain(self) -> nn.Embedding:
        """The table with the rows in it."""
        with torch.no_grad():
            self.table.weight[self.words] = self.rows.to(self.table.weight.dtype)
        return self.table


def layers_of(transformer: nn.Module) -> nn.ModuleList:
    """The stack of the model's layers: the longest list of modules in it. Raises `BadModel`."""
    stacks = [module for module in transformer.modules() if isinstance(module, nn.ModuleList) and len(module)]
    if not stacks:
        raise BadModel("this model has no list of layers, which train_last_n and sharding need")
    return max(stacks, key=len)


def freeze_all_but_last(transformer: nn.Module, layers: int) -> None:
    """Leaves the last layers, and what comes after them (a final norm), to be trained; embeddings do not."""
    stack = layers_of(transformer)
    if layers > len(stack):
        raise BadSpec(f"train_last_n is {layers}, but the model has {len(stack)} layers")
    last = list(stack.parameters())[-1]
    seen = False
    for parameter in transformer.parameters():
        parameter.requires_grad_(seen)
        seen = seen or parameter is last
    for layer in list(stack)[len(stack) - layers :]:
        layer.requires_grad_(True)


def choose_trainable(spec: TrainSpec, model: nn.Module, transformer: nn.Module) -> tuple[int, int]:
    """Adapters and freezing as the spec asks, in place. Returns (trainable, all) parameters.

    ``transformer`` is the part of ``model`` that came pretrained. Heads after it are trained as well, except
    with lora, which trains only those that are new or named. Raises `BadSpec` when nothing would be left to
    train.
    """
    whole = count(model)
    if spec.lora is not None:
        _freeze_heads(model, spec.lora)
        add_lora(transformer, spec.lora)
        if new := getattr(model, "new_words", None):
            transformer.set_input_embeddings(NewWords(transformer.get_input_embeddings(), new))
    elif spec.freeze_base:
        transformer.requires_grad_(False)
    elif spec.train_last_n is not None:
        freeze_all_but_last(transformer, spec.train_last_n)
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if trainable == 0:
        raise BadSpec(
            "nothing is left to train: freeze_base leaves the modules after the transformer, none of which "
            "has weights here. Use train_last_n or lora."
        )
    return trainable, whole


def _freeze_heads(model: nn.Module, asked: LoRA) -> None:
    """Leaves of the modules after the transformer those to be trained that are new or asked for.

    A cross-encoder has no such modules: its head belongs to the model, and is trained. Raises `BadSpec` for
    names of modules that are not there.
    """
    heads = dict(list(model.named_children())[1:]) if isinstance(model, nn.Sequential) else {}
    there = {name: module for name, module in heads.items() if any(True for _ in module.parameters())}
    named = {name: {name, type(module).__name__.lower()} for name, module in there.items()}
    wanted = {name.lower() for name in asked.modules_to_train}
    if unknown := sorted(wanted - set().union(*named.values())):
        listed = ", ".join(type(module).__name__.lower() for module in there.values())
        raise BadSpec(
            f"lora.modules_to_train: no module after the transformer is called {', '.join(unknown)}; with "
            f"weights there are: {listed or 'none, so leave it out'}"
        )
    if not getattr(model, "trained", True):  # a projection that was just drawn
        return
    for name, module in there.items():
        module.requires_grad_(bool(named[name] & wanted))


def describe_trained(model: nn.Module, transformer: nn.Module) -> str:
    """How many parameters are trained in which module, in words."""
    inside = {id(parameter) for parameter in transformer.parameters()}
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if "lora_" in name:
            layer = name.partition(".lora_")[0].rpartition(".")[2]
            part = f"adapters of {layer}"
        elif id(parameter) in inside:
            part = "new words" if name.endswith("rows") and "embed" in name else "the transformer"
        else:
            top = name.partition(".")[0]
            part = f"{top} ({type(getattr(model, top)).__name__})"
        counts[part] = counts.get(part, 0) + parameter.numel()
    return ", ".join(f"{part} {numbers:,}" for part, numbers in counts.items())


def count(model: nn.Module) -> int:
    """Parameters; four-bit weights are stored two in a byte and counted as two."""
    total = 0
    for parameter in model.parameters():
        packed = type(parameter).__name__ == "Params4bit"
        total += parameter.numel() * (2 if packed else 1)
    return total


# -- weights that a checkpoint holds -------------------------------------------------------------------------


def trained_state(model: nn.Module, *, keep: bool = True) -> dict[str, torch.Tensor]:
    """What training changes: trainable parameters and buffers. A frozen base is loaded from where it lies.

    Of a sharded model whole tensors in main memory; all ranks must call it, and who does not ``keep`` them
    gets none.
    """
    state = {}
    for name, tensor in _trained_tensors(model).items():
        whole = gather_tensor(tensor)
        if keep:
            state[name] = whole if whole is tensor else whole.cpu()
    return {name: tensor.contiguous() for name, tensor in state.items()}


def _trained_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    found = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
    found |= {name: tensor for name, tensor in model.named_buffers() if tensor.is_floating_point()}
    return {name: tensor.detach() for name, tensor in found.items()}


def restore_trained_state(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """The opposite of `trained_state`. Raises `BadModel` when the model has another shape than it had."""
    there = _trained_tensors(model)
    if set(there) != set(state) or any(there[name].shape != state[name].shape for name in there):
        different = sorted(set(there) ^ set(state))[:3] or "shapes"
        raise BadModel(
            f"the checkpoint belongs to another model or another choice of what is trained: {different}"
        )
    with torch.no_grad():
        for name, tensor in there.items():
            tensor.copy_(part_of(state[name], tensor))


# -- plain weights again -------------------------------------------------------------------------------------


def merge(model: nn.Module) -> int:
    """Replaces adapters, quantized layers and new words by plain layers that compute the same, in place.

    Returns how many were replaced. The result is in float32, and loads anywhere.
    """
    replaced = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, NewWords):
                setattr(parent, name, child.plain())
                replaced += 1
                continue
            base = child.base_layer if hasattr(child, "lora_A") else child
            if not (hasattr(child, "lora_A") or _is_quantized(base)):
                continue
            weight = _plain_weight(base)
            if hasattr(child, "lora_A"):
                for adapter in child.active_adapters:
                    weight = weight + child.get_delta_weight(adapter).float()
            linear = nn.Linear(
                base.in_features, base.out_features, bias=base.bias is not None, device=weight.device
            )
            with torch.no_grad():
                linear.weight.copy_(weight)
                if base.bias is not None:
                    linear.bias.copy_(base.bias)
            setattr(parent, name, linear)
            replaced += 1
    _forget_quantization(model)
    return replaced


def _is_quantized(module: nn.Module) -> bool:
    return type(module).__name__ in ("Linear4bit", "Linear8bitLt")


def _plain_weight(layer: Any) -> torch.Tensor:
    """[out, in] in float32."""
    kind = type(layer).__name__
    if kind == "Linear4bit":
        from bitsandbytes.functional import dequantize_4bit

        weight: torch.Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        return weight.float()
    if kind == "Linear8bitLt":
        scales = layer.state.SCB if layer.weight.SCB is None else layer.weight.SCB
        codes = layer.state.CB if layer.state.CB is not None else layer.weight.data
        return codes.float() * scales.float()[:, None] / 127.0
    return layer.weight.detach().float()


def _forget_quantization(model: nn.Module) -> None:
    """So that the library saves it as what it now is."""
    for part in model.modules():
        for name in ("hf_quantizer", "quantization_method"):
            if hasattr(part, name):
                delattr(part, name)
        for name in ("is_quantized", "is_loaded_in_4bit", "is_loaded_in_8bit"):
            if getattr(part, name, False):
                setattr(part, name, False)
        config = getattr(part, "config", None)
        if config is not None and hasattr(config, "quantization_config"):
            del config.quantization_config
