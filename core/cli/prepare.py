"""``reason-prepare``: make ReasonIR's hard queries with BRIGHT's documents into a dataset."""

import argparse
import sys
from pathlib import Path
from typing import Any

from core.cli.flags import add_field, add_output_flags, parse_flags
from core.cli.run import run_and_tell
from core.spec.files import localize
from core.spec.prepare import BRIGHT_DOCUMENTS, PrepareSpec, Split

REASONIR_HQ = "hf:reasonir/reasonir-data:hq"


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 success, 1 the job failed, 2 invalid usage or spec, 3 stopped."""
    asked = parse_flags(make_parser(), arguments)
    return run_and_tell(
        lambda: localize(to_spec(asked)),
        Path(asked.output_dir),
        overwrite=asked.overwrite,
        as_json=asked.json,
    )


def to_spec(asked: argparse.Namespace) -> dict[str, Any]:
    """Return the flags as a job spec."""
    return {
        "kind": "prepare",
        "task": "reasonir_hq",
        "source": {"ref": asked.reasonir, "corpus": asked.bright},
        "split": {"dev": asked.dev, "test": asked.test},
        "max_reject_share": asked.max_reject_share,
        "seed": asked.seed,
    }


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reason-prepare",
        description="Make a dataset for reason-train from ReasonIR HQ, with the texts of BRIGHT's documents "
        "instead of their ids. Its dataset.json counts all pairs that cannot be used.",
        epilog="example: reason-prepare --reasonir data/reasonir/hq.jsonl --bright data/BRIGHT",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--reasonir", default=REASONIR_HQ, help="ReasonIR's rows: hub dataset, file or folder")
    add("--bright", default=BRIGHT_DOCUMENTS, help="BRIGHT's documents: hub dataset or folder")
    add(
        "--output_dir",
        default="data/prepared_reasonir_hq",
        help="output folder; the dataset is in its subfolder dataset/",
    )
    add_field(parser, "--dev", Split, "dev", help="share of the rows for the split dev")
    add_field(parser, "--test", Split, "test", help="share of the rows for the split test")
    unusable = "largest share of unusable rows; they are skipped and counted"
    add_field(parser, "--max_reject_share", PrepareSpec, "max_reject_share", default=1.0, help=unusable)
    add_field(parser, "--seed", PrepareSpec, "seed")
    add_output_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
