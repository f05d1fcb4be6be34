"""When a pipeline is submitted again: cron expressions, as Debian's cron reads them."""

from datetime import UTC, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from core.errors import InvalidRequest, Problem
from core.spec.parts.base import Strict


def _cron(text: str) -> str:
    if len(text.split()) != 5:
        raise ValueError(
            f"{text!r} must have five fields, minute, hour, day of month, month, day of week: 0 3 * * SUN"
        )
    try:
        next(CronSim(text, datetime.now(UTC)))
    except CronSimError as error:
        raise ValueError(f"{text!r} is no cron expression: {error}") from error
    except StopIteration as error:
        raise ValueError("names a moment that never comes") from error
    return text


def check_cron(text: str) -> None:
    """Raises `InvalidRequest` for what is no cron expression."""
    try:
        _cron(text)
    except ValueError as error:
        raise InvalidRequest(f"schedule: {error}", [Problem("schedule", str(error))]) from error


def _timezone(text: str) -> str:
    # Not what the machine has beside them: localtime is another zone on each.
    if text not in available_timezones() - {"localtime", "posixrules", "Factory"}:
        raise ValueError(f"{text!r} is no time zone: write a name such as Europe/Berlin")
    return text


class CronSchedule(Strict):
    """Moments that come again and again. The cron expression may be written alone."""

    cron: Annotated[str, Field(max_length=200), AfterValidator(_cron)] = Field(
        description="Minute, hour, day of month, month, day of week: 0 3 * * SUN is every Sunday at 3 am.",
        examples=["0 3 * * SUN"],
    )
    timezone: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_timezone)] = Field(
        "UTC", description="Name in the IANA database, such as Europe/Berlin."
    )

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, value: Any) -> Any:
        return {"cron": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string", "maxLength": 200}, handler(schema)]}

    def next_after(self, moment: datetime) -> datetime:
        """The first moment after another, in UTC. Hours that clocks skip or have twice count as in Debian's
        cron."""
        moments = CronSim(self.cron, moment.astimezone(ZoneInfo(self.timezone)))
        # In an hour that clocks have twice, the next moment by the clock may be an earlier one.
        return next(found for one in moments if (found := one.astimezone(UTC)) > moment)
