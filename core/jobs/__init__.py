"""A job's life: states, transitions, end reasons, events. Pure, no I/O."""

from core.jobs.events import Event, EventType
from core.jobs.reasons import EndReason
from core.jobs.state import JobState, can_move

__all__ = ["EndReason", "Event", "EventType", "JobState", "can_move"]
