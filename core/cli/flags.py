"""Flags that several commands have, and flags made from fields of specs."""

import argparse
import difflib
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel


def add_field(
    parser: argparse._ActionsContainer, flag: str, model: type[BaseModel], field: str, **changed: Any
) -> None:
    """Add a flag with the type (or the choices), the default and the description of a spec's field.
    ``changed`` overrides them."""
    known = model.model_fields[field]
    options: dict[str, Any] = {"default": known.default}
    if get_origin(known.annotation) is Literal:
        options["choices"] = get_args(known.annotation)
    else:
        options["type"] = known.annotation if known.annotation in (int, float) else type(known.default)
    if known.description:
        first, rest = known.description[0], known.description[1:]
        options["help"] = f"{first.lower()}{rest}".rstrip(".").replace("%", "%%")
    parser.add_argument(flag, **{**options, **changed})


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overwrite", action="store_true", help="delete the content of the output folder first"
    )
    parser.add_argument("--json", action="store_true", help="print result.json as the last line")


def parse_flags(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """As ``parser.parse_args``; the message about an unknown flag names the nearest known one."""
    asked, unknown = parser.parse_known_args(arguments)
    flags = {
        flag.strip("-").replace("-", "_"): flag
        for action in parser._actions  # argparse has no other way to its flags
        for flag in action.option_strings
    }
    told = []
    for name in [name for name in unknown if name.startswith("-")] or unknown:  # else their values
        plain = name.partition("=")[0]
        near = difflib.get_close_matches(plain.strip("-").replace("-", "_"), flags, 1)
        told.append(f"{plain} (did you mean {flags[near[0]]}?)" if near else plain)
    if told:
        parser.error(f"unrecognized arguments: {', '.join(told)}")
    return asked
