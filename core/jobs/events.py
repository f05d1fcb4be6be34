"""What a job tells while it lives: lines from its process, rows in the database, events on the stream."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from core.spec.parts.base import Lenient


class EventType(StrEnum):
    """Event types; each comment gives the schema of ``data``."""

    STATE = "state"  # {state, attempt, reason?, message?}: written by the store alone
    PHASE = "phase"  # {phase}
    PROGRESS = "progress"  # {fraction, step, total_steps, epoch, eta_seconds}
    METRIC = "metric"  # {step, values: {name: number}}
    MEMORY = "memory"  # {rss_bytes, gpu_bytes, gpu_peak_bytes}
    NOTICE = "notice"  # {level, message}
    CHECKPOINT = "checkpoint"  # {step, bytes, seconds}
    OUTPUT = "output"  # {name, kind, uri, sha256, bytes, metadata}


class Event(Lenient):
    """One line of ``events.jsonl``, and one row of the events table."""

    type: EventType
    at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    data: dict[str, Any] = Field(default_factory=dict)
