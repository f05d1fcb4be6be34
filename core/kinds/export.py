"""An export job: a checkpoint of a training -> a model that loads like any other."""

import shutil

from core.artifacts import fresh_folder
from core.runtime.context import RunContext
from core.spec.export import ExportSpec
from core.training.checkpoints.weights import describe_checkpoint, model_of_checkpoint
from core.training.reporting.card import write_checkpoint_card


def export(spec: ExportSpec, context: RunContext) -> None:
    """Load the base model, put the weights into it, publish. Raises `Stopped` or a `JobFailure`."""
    context.phase("loading")
    family, model, saved = model_of_checkpoint(context.model_path(spec.model), context)
    context.check_stop()
    context.phase("publishing")
    work = fresh_folder(context.folder / "work")
    folder = fresh_folder(work / "model")
    family.save_model(model, folder)
    write_checkpoint_card(folder / "README.md", spec.model, saved.training, saved.step)
    context.publish("model", "model", folder, {"checkpoint": spec.model, **describe_checkpoint(saved)})
    shutil.rmtree(work)
