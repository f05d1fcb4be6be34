"""Detect a model's family from its configuration files."""

from core.models.description import Description
from core.runtime.context import RunContext
from core.spec.parts.models import Family


def family_in(context: RunContext, reference: str) -> Family:
    """Without loading it. Raises `BadModel` where there is no model, where its files leave the family open,
    for another kind of model, and where a hub cannot be asked."""
    return Description.of(context.model_path(reference)).family(reference)
