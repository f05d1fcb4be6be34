"""The shortest spec of each kind of job."""

from typing import Any

MINIMAL: dict[str, dict[str, Any]] = {
    "train": {"kind": "train", "base_model": "org/model", "dataset": "file:pairs.jsonl"},
    "prepare": {"kind": "prepare", "source": "file:rows.jsonl"},
    "mine": {"kind": "mine", "dataset": "file:pairs.jsonl"},
    "evaluate": {"kind": "evaluate", "models": ["org/model"], "datasets": ["file:set"]},
    "embed": {"kind": "embed", "model": "org/model", "texts": ["a"]},
}
