"""Datasets from a hub, as folders that the readers here understand."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from core.artifacts import staged
from core.data.fetching.benchmarks import CONVERSION, fetch_benchmark
from core.errors import BadData, StorageFailure
from core.native_errors import first_line, is_storage_error, writing
from core.spec.parts.refs import BENCHMARKS, Ref


def fetch_dataset(ref: Ref, cache: Path, *, offline: bool) -> Path:
    """A hub dataset, or one of its configurations or splits, as `save_to_disk` writes it; kept for later
    jobs.

    Raises `BadData` with a sentence on what to do when it cannot be had.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    folder = cache / "hub-datasets"
    try:
        with _offline() if offline else nullcontext():
            if ref.scheme in BENCHMARKS:
                # The version of our own conversion: an older one's files are not taken for today's.
                benchmark = folder / f"v{CONVERSION}" / f"{ref.scheme}-{ref.target}"
                if not benchmark.is_dir():
                    fetch_benchmark(ref, benchmark, load_dataset)
                return benchmark
            found = load_dataset(ref.target, ref.config, split=ref.split, revision=ref.revision)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        if is_storage_error(error):
            raise StorageFailure(f"{ref} cannot be kept in {folder}: {first_line(error)}") from error
        advice = (
            "REASON_OFFLINE is set, and it is not in the hub's cache here"
            if offline
            else "see the hub's page of it"
        )
        raise BadData(
            f"{ref} cannot be had from the hub ({advice}; a folder can be named as file:PATH): {error}"
        ) from error
    marks = sorted(part._fingerprint for part in (found.values() if isinstance(found, dict) else [found]))
    name = re.sub(r"[^\w.-]+", "-", str(ref).removeprefix("hf:"))
    final = folder / f"{name}-{'-'.join(marks)[:80]}"
    if not final.is_dir():
        with staged(final) as staging, writing(f"Keeping {ref}", folder):
            found.save_to_disk(str(staging))
    return final


@contextmanager
def _offline() -> Iterator[None]:
    """Both libraries ask the hub first, whatever a call says, unless their own switch is set."""
    import datasets.config
    import huggingface_hub.constants

    switches: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in switches]
    try:
        for module in switches:
            module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, value in zip(switches, before, strict=True):
            module.HF_HUB_OFFLINE = value
