"""Answers of language models on disk: what was paid for is stored before it is used, and never asked twice.

One SQLite file for each model, shared by the jobs of a host. A process that is killed loses no answer that it
has received.
"""

import contextlib
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import StorageFailure

_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, text TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, answer_tokens INTEGER NOT NULL,
    estimated INTEGER NOT NULL, created REAL NOT NULL
) WITHOUT ROWID
"""
_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """What the model wrote. ``estimated``: the endpoint did not report its tokens."""

    text: str
    prompt_tokens: int
    answer_tokens: int
    estimated: bool = False

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.answer_tokens


def answer_key(request: dict[str, Any], attempt: int) -> str:
    """The key of an answer: model, messages and sampling settings. ``attempt``: 0, or 1 if 0 was useless."""
    described = json.dumps([request, attempt], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(described.encode()).hexdigest()


class Answers:
    """The stored answers of one model. Used by one thread."""

    def __init__(self, folder: Path, model: str) -> None:
        """Raises `StorageFailure`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{hashlib.sha256(model.encode()).hexdigest()[:32]}.sqlite"
        with self._storing():
            self._connection = sqlite3.connect(self.path, timeout=_WAIT_SECONDS, isolation_level=None)
            # A killed process loses nothing that was written; only a power cut may lose the last seconds.
            self._use_wal()
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(_TABLE)

    def find(self, key: str) -> Answer | None:
        row = self._connection.execute(
            "SELECT text, prompt_tokens, answer_tokens, estimated FROM answers WHERE key = ?", (key,)
        ).fetchone()
        return None if row is None else Answer(row[0], row[1], row[2], bool(row[3]))

    def keep(self, key: str, answer: Answer) -> Answer:
        """Store an answer. Returns the one that counts: of two jobs that ask at once, that of the first.

        Raises `StorageFailure` for a full disk.
        """
        with self._storing():
            self._connection.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)",
                (
                    key,
                    answer.text,
                    answer.prompt_tokens,
                    answer.answer_tokens,
                    answer.estimated,
                    time.time(),
                ),
            )
            return self.find(key) or answer

    def _use_wal(self) -> None:
        """SQLite does not wait for another process that is just doing the same."""
        end = time.monotonic() + _WAIT_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    @contextlib.contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageFailure(
                f"Answers of the language model cannot be stored in {self.path}: {error}"
            ) from error

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> "Answers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
