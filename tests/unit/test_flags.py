"""Flags that stand for fields of specs."""

import argparse
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from core.cli.flags import add_field

Count = Annotated[int, Field(ge=0)]


class Options(BaseModel):
    share: float = Field(1, description="At most 100% of it.")
    count: Count = 3
    every: int | None = Field(500, ge=1)
    how: Literal["slow", "fast"] = "slow"


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name in Options.model_fields:
        add_field(made, f"--{name}", Options, name)
    return made


def test_a_flag_has_the_default_the_type_and_the_text_of_its_field(parser):
    assert vars(parser.parse_args([])) == Options().model_dump()
    found = parser.parse_args(["--share", "0.5", "--count", "4", "--every", "2", "--how", "fast"])
    assert vars(found) == {"share": 0.5, "count": 4, "every": 2, "how": "fast"}
    assert "at most 100% of it (default: 1)" in parser.format_help()


@pytest.mark.parametrize("wrong", [("--how", "else"), ("--count", "1.5")])
def test_a_flag_refuses_what_its_field_cannot_be(parser, wrong):
    with pytest.raises(SystemExit):
        parser.parse_args(wrong)


def test_a_flag_may_have_another_default_and_text():
    parser = argparse.ArgumentParser()
    add_field(parser, "--portion", Options, "share", default=0.1, help="so much")
    assert parser.parse_args([]).portion == 0.1
    assert "so much" in parser.format_help()
