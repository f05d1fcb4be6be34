"""The forms of texts, names and identifiers: one place for the specs, the API's parameters and the store.

Each form is a pattern that pydantic, JSON Schema and Python read alike. A text is checked against a form
before any database sees it, so that SQLite and PostgreSQL give the same answers. `matches` compares the whole
text: Python's ``$`` alone would let a trailing newline through.
"""

import re
from functools import cache
from typing import Annotated

from pydantic import Field

PLAIN = r"^[^\x00]*$"
"""Any text without NUL, which PostgreSQL cannot store. Unpaired surrogates are no Unicode and never match."""

NAME = r"^[A-Za-z0-9][\w. -]*$"
"""The name of a job and of its outputs."""

LABEL_KEY = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"

LABEL = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}:[^\x00]{0,200}$"
"""A label as a filter: key:value."""

ROLE_AND_COLUMN = r"^[a-z]+:[^\x00]+$"
"""A column of a file by its role: query:title."""

JOB_ID = r"^job_[0-9a-z]{1,60}$"
ARTIFACT_ID = r"^art_[0-9a-z]{1,60}$"
PIPELINE_ID = r"^pipe_[0-9a-z]{1,60}$"
SCHEDULE_ID = r"^sch_[0-9a-z]{1,60}$"
KEY_ID = r"^key_[0-9a-z]{1,60}$"
WEBHOOK_ID = r"^hook_[0-9a-z]{1,60}$"
DELIVERY_ID = r"^msg_[0-9a-z]{1,60}$"

API_KEY = r"^key_[0-9a-z]{1,60}\.[A-Za-z0-9_-]{1,100}$"
"""An API key as clients send it: its id and its secret."""

NUMBER = r"^[0-9]{1,9}$"
"""A version, or the number of an event, in a text."""

KEPT = r"^[A-Za-z0-9][\w. -]{0,199}(@([0-9]{1,9}|current))?$"
"""A dataset or model in a path: its id, NAME, NAME@VERSION or NAME@current."""

JobId = Annotated[str, Field(pattern=JOB_ID, examples=["job_01k9zq5m2w8r4t6y0b3d5f7h9j"])]
ArtifactId = Annotated[str, Field(pattern=ARTIFACT_ID, examples=["art_01k9zq5m2w8r4t6y0b3d5f7h9j"])]
ScheduleId = Annotated[str, Field(pattern=SCHEDULE_ID, examples=["sch_01k9zq5m2w8r4t6y0b3d5f7h9j"])]
PipelineId = Annotated[str, Field(pattern=PIPELINE_ID, examples=["pipe_01k9zq5m2w8r4t6y0b3d5f7h9j"])]
KeyId = Annotated[str, Field(pattern=KEY_ID, examples=["key_01k9zq5m2w8r4t6y0b3d5f7h9j"])]
WebhookId = Annotated[str, Field(pattern=WEBHOOK_ID, examples=["hook_01k9zq5m2w8r4t6y0b3d5f7h9j"])]

_SENTENCES = {
    PLAIN: "must not contain the character NUL (U+0000)",
    NAME: "must begin with a letter or digit and contain only letters, digits, '_', '.', '-' and spaces",
    LABEL_KEY: "must begin with a letter or digit and contain only letters, digits, '_', '.' and "
    "'-', at most 63 characters",
    ROLE_AND_COLUMN: "must have the form role:NAME or role:NUMBER, for example query:title",
    LABEL: "must have the form key:value",
    JOB_ID: "is not a job id, which looks like job_01k9zq5m2w8r4t6y0b3d5f7h9j",
    ARTIFACT_ID: "is not an artifact id, which looks like art_01k9zq5m2w8r4t6y0b3d5f7h9j",
    SCHEDULE_ID: "is not a schedule id, which looks like sch_01k9zq5m2w8r4t6y0b3d5f7h9j",
    PIPELINE_ID: "is not a pipeline id, which looks like pipe_01k9zq5m2w8r4t6y0b3d5f7h9j",
    KEY_ID: "is not a key id, which looks like key_01k9zq5m2w8r4t6y0b3d5f7h9j",
    WEBHOOK_ID: "is not a webhook id, which looks like hook_01k9zq5m2w8r4t6y0b3d5f7h9j",
    KEPT: "is neither an id nor NAME or NAME@VERSION",
}


def describe_form(form: str) -> str:
    """Return the error message for a text that does not match the form."""
    return _SENTENCES.get(form, f"must match the pattern {form}")


@cache
def _compiled(form: str) -> re.Pattern[str]:
    return re.compile(form)


def matches(form: str, text: str) -> bool:
    """Whether the whole text has the form and is valid Unicode."""
    return _compiled(form).fullmatch(text) is not None and is_unicode(text)


def is_unicode(text: str) -> bool:
    """Whether the text can be written as UTF-8: it has no unpaired surrogate."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
