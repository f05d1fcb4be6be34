"""The embedded broker: kombu's filesystem transport, made safe for a writer and a reader at the same moment.

kombu writes a message where it is read, so that a reader can meet an empty file, and Celery then gives up its
consumer for good. Here a message appears whole (written aside, renamed), is taken by a rename within the
same folder, and one that cannot be read is dropped: messages are wake-ups, and the sweepers repeat them.
"""

import contextlib
import json
import logging
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES, filesystem

_log = logging.getLogger(__name__)


class Channel(filesystem.Channel):
    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]
        folder = Path(self.data_folder_out)
        name = f"{time.time_ns()}_{uuid.uuid4().hex}.{queue}.msg"
        aside = folder / f".{name}"
        try:
            aside.write_text(json.dumps(payload), encoding="utf-8")
            aside.rename(folder / name)
        except OSError as error:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)  # what a full disk has taken of it
            raise ChannelError(f"No message can be written to {folder}: {error}") from error

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        folder = Path(self.data_folder_in)
        for name in sorted(path.name for path in folder.iterdir()):
            if name.partition(".")[2] != f"{queue}.msg":
                continue
            taken = folder / f".{name}.taken"
            try:
                (folder / name).rename(taken)
            except OSError:
                continue  # another worker was quicker
            try:
                return json.loads(taken.read_bytes())
            except (OSError, ValueError) as error:
                _log.warning("A wake-up could not be read and is dropped: %s", error)
            finally:
                taken.unlink(missing_ok=True)
        raise Empty


class Transport(filesystem.Transport):
    Channel = Channel


def install() -> None:
    """Makes ``filesystem://`` mean this transport."""
    TRANSPORT_ALIASES["filesystem"] = f"{__name__}:Transport"
