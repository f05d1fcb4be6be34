"""The Hugging Face trainer, with our batches, our encoding and checkpoints that restore exactly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, Trainer

from core.training.adapters import restore_trained_state, trained_state
from core.training.batching import TrainingBatches
from core.training.callbacks import Throughput
from core.training.encoding import encode_micro_batches

_WEIGHTS = "weights.safetensors"


class PairTable(Dataset):
    """An Arrow table as a map-style dataset that is read a batch at a time."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.column_names = table.column_names

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        return self._table.take(pa.array(indices)).to_pylist()


class PairTrainer(Trainer):
    """Trains a sentence-transformers model on (query, positive, negatives) rows.

    ``collator`` turns rows into ``{micro_batches, positions, queries, tokens, ...}``; ``objective`` takes the
    embeddings of all texts, and that. ``cached`` recomputes activations micro-batch by micro-batch.
    """

    def __init__(
        self,
        *,
        batches: TrainingBatches,
        collator: Callable[[list[dict[str, Any]]], dict[str, Any]],
        objective: torch.nn.Module,
        cached: bool,
        throughput: Throughput,
        **arguments: Any,
    ) -> None:
        super().__init__(data_collator=collator, **arguments)
        self.remove_callback(PrinterCallback)  # our own callbacks tell, through the reporter
        self._batches, self._throughput = batches, throughput
        self._objective = objective
        self._cached = cached
        self.accelerator.even_batches = False

    def get_train_dataloader(self) -> DataLoader:
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self._batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_num_workers > 0,
            generator=torch.Generator().manual_seed(self.args.seed),  # leaves the dropout's generator alone
        )
        return self.accelerator.prepare(loader)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        embeddings = encode_micro_batches(
            model, inputs["micro_batches"], inputs["positions"], cached=self._cached
        )  # [queries + documents, dim]
        loss = self._objective(embeddings, inputs)
        self._throughput.add(inputs["queries"], inputs["tokens"])
        return (loss, {}) if return_outputs else loss

    # What is trained, tensor by tensor, and nothing else: what `SentenceTransformer(path)` would rebuild is
    # not always what was trained (adapters come back as zeros, casts are lost).

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.save_weights(folder / _WEIGHTS)

    def _load_from_checkpoint(self, checkpoint_path: str, model: Any = None) -> None:
        self.load_weights(Path(checkpoint_path) / _WEIGHTS)

    def save_weights(self, path: Path) -> None:
        save_file(trained_state(self.accelerator.unwrap_model(self.model)), str(path))

    def load_weights(self, path: Path) -> None:
        restore_trained_state(
            self.accelerator.unwrap_model(self.model), load_file(str(path), device=str(self.args.device))
        )
