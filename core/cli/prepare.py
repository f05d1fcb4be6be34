"""``reason-prepare``: ReasonIR's hard queries with BRIGHT's documents, made ready for ``reason-train``."""

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
    """Exit status: 0 done, 1 the job failed, 2 bad usage or spec, 3 stopped."""
    asked = parse_flags(make_parser(), arguments)
    return run_and_tell(
        lambda: localize(to_spec(asked)),
        Path(asked.output_dir),
        overwrite=asked.overwrite,
        as_json=asked.json,
    )


def to_spec(asked: argparse.Namespace) -> dict[str, Any]:
    """The flags as a job spec."""
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
        description="ReasonIR HQ with the texts of BRIGHT's documents in place of ids: one dataset that "
        "reason-train reads as it is. Every pair that cannot be used is counted in its dataset.json.",
        epilog="example: reason-prepare --reasonir data/reasonir/hq.jsonl --bright data/BRIGHT",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--reasonir", default=REASONIR_HQ, help="hub dataset, file or folder of ReasonIR's rows")
    add("--bright", default=BRIGHT_DOCUMENTS, help="hub dataset or folder of BRIGHT's documents")
    add("--output_dir", default="data/prepared_reasonir_hq", help="the dataset is in its folder dataset/")
    add_field(parser, "--dev", Split, "dev", help="share of the rows")
    add_field(parser, "--test", Split, "test", help="share of the rows")
    unusable = "share of the rows that may be unusable; by default they are skipped, and reported"
    add_field(parser, "--max_reject_share", PrepareSpec, "max_reject_share", default=1.0, help=unusable)
    add_field(parser, "--seed", PrepareSpec, "seed")
    add_output_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
