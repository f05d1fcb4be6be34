"""Whether a loaded model's weights came from its files. What they lack, transformers draws at random."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock

from torch import nn
from transformers import modeling_utils

from core.errors import BadModel

_ONE_AT_A_TIME = threading.RLock()

_UNUSED = ("pooler",)
"""Heads of encoders that no family reads: many checkpoints lack them."""


@contextlib.contextmanager
def checked_weights(reference: str, *, new_head: bool) -> Iterator[list[str]]:
    """Every model that transformers loads within must find its weights in its files. Raises `BadModel`.

    ``new_head``: what stands above the base model may be new; the list fills with the names of such weights.
    transformers tells what it did not find in a table for the log alone, so its writer is replaced while
    this lasts.
    """
    new: list[str] = []

    def report(*arguments: Any, **named: Any) -> None:
        if mismatched := sorted(named["loading_info"].mismatched_keys):
            name, saved, wanted = mismatched[0]
            raise BadModel(
                f"{reference}: {name} is {list(saved)} in its files, and config.json makes it {list(wanted)}:"
                " the weights are of another model"
            )
        write(*arguments, **named)
        missing = set(named["loading_info"].missing_keys)
        new.extend(_check(named["model"], missing, reference, new_head=new_head))

    with _ONE_AT_A_TIME:
        write = modeling_utils.log_state_dict_report
        with mock.patch.object(modeling_utils, "log_state_dict_report", report):
            yield new


def _check(model: Any, missing: set[str], reference: str, *, new_head: bool) -> list[str]:
    """Names of the weights of a new head."""
    prefix = f"{model.base_model_prefix}."
    has_head = model.base_model is not model
    of_head = {name for name in missing if has_head and not name.startswith(prefix)}
    of_base = {name for name in missing - of_head if not set(name.split(".")) & set(_UNUSED)}
    # A classifier's head stands on the pooler, which must be trained as it is.
    pooler = missing - of_head - of_base if has_head else set()
    if of_base:
        total = len(model.state_dict())
        raise BadModel(
            f"{reference}: the weights of {min(of_base)} are not in its files ({len(of_base)} of {total} are "
            "missing): config.json describes a larger model than the files hold"
        )
    if (lacking := of_head | pooler) and not new_head:
        raise BadModel(
            f"{reference} is no cross-encoder: it has no trained head ({min(lacking)} is not in its files), "
            "its scores would be random"
        )
    return sorted(of_head | pooler)


def check_vocabulary(model: nn.Module, reference: str) -> None:
    """Raises `BadModel` where the tokenizer knows tokens that the table of embeddings does not have."""
    tokenizer: Any = getattr(model, "tokenizer", None)
    table = _embeddings(model)
    if table is None or not hasattr(tokenizer, "get_vocab"):
        return
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= table:
        raise BadModel(
            f"{reference}: its tokenizer has tokens up to number {highest}, and its table of embeddings has "
            f"{table} rows: the tokenizer is of another model"
        )


def _embeddings(model: nn.Module) -> int | None:
    """Rows of the table of a model's word embeddings."""
    for module in model.modules():
        get = getattr(module, "get_input_embeddings", None)
        if callable(get):
            with contextlib.suppress(NotImplementedError, AttributeError):
                table = get()
                if isinstance(table, nn.Embedding):
                    return table.num_embeddings
    return None
