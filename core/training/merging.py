"""Average the trained weights with those of the base model, against forgetting.

LM-Cocktail (Xiao et al. 2023, arXiv 2311.13534); the same for fine-tuned vision models is WiSE-FT (Wortsman
et al. 2022, arXiv 2109.01903). A model that was trained on few or made queries keeps more of what its base
knew.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file

from core.errors import BadSpec
from core.native_errors import reading_cache
from core.runtime.context import RunContext
from core.spec.train import TrainSpec
from core.training.adapters import restore_trained_state, trained_state
from core.training.checkpoints.checkpoint import Checkpoints, Evaluation, TrainingState
from core.training.judging import Judge, evaluate
from core.training.prepare import Prepared
from core.training.trainer import PairTrainer


def check_merge(spec: TrainSpec, prepared: Prepared) -> None:
    """Raise `BadSpec` for a base model that has nothing to average with."""
    if spec.merge is not None and not getattr(prepared.model, "trained", True):
        raise BadSpec(
            f"merge averages the trained weights with those of {spec.base_model}, whose last layer was drawn "
            "at random for this training: use a trained model as base_model, or remove merge"
        )


def keep_base(trainer: PairTrainer, checkpoints: Checkpoints) -> Path:
    """Write the base model's weights, as far as they will be trained, before the first step."""
    path = checkpoints.attempt_folder / "base.safetensors"
    trainer.save_weights(path)
    return path


def merge_with_base(model: torch.nn.Module, base: Path, base_weight: float) -> None:
    """Set the trained tensors to ``base_weight * base + (1 - base_weight) * trained``, in place.

    Of LoRA, only ``lora_B`` is scaled: at the start it is 0, so that the product of both is averaged exactly.
    """
    with reading_cache(base):
        before = load_file(str(base))
    after = trained_state(model)
    merged = {
        name: tensor
        if ".lora_A." in name
        else torch.lerp(tensor.float(), before[name].to(tensor.device).float(), base_weight).to(tensor.dtype)
        for name, tensor in after.items()
    }
    restore_trained_state(model, merged)


def finish_merge(
    spec: TrainSpec,
    context: RunContext,
    prepared: Prepared,
    trainer: PairTrainer,
    state: TrainingState,
    base: Path,
    judge: Judge,
) -> None:
    """Merge, and evaluate what will be published."""
    assert spec.merge is not None
    weight = spec.merge.base_weight
    merge_with_base(prepared.model, base, weight)
    context.notice(
        f"The published weights are averaged with those of the base model (merge.base_weight {weight:g})."
    )
    if not prepared.rows.evaluated:
        return
    before = state.final
    step = before.step if before is not None else trainer.state.global_step
    context.phase("evaluating")
    scores = evaluate(context, prepared, judge, state, step=step, prefix="merged/")
    state.merged = Evaluation(step, scores)
