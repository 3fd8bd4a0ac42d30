"""``python -m benchmarks report``: the table of ratios, and RESULTS.md."""

import argparse
import os
import shutil
import sys

from .report import report
from .rows import ROWS


def interpreter(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise argparse.ArgumentTypeError(f"no interpreter at {name}")
    return os.path.abspath(found)  # not resolved: the link is what makes it a virtual environment


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("report", help="measure all rows, print ratios, write RESULTS.md")
    verb.add_argument(
        "--python", action="append", type=interpreter, help="measure with this one (repeatable)"
    )
    verb.add_argument("--quick", action="store_true", help="a smoke run; RESULTS.md is left alone")
    verb.add_argument(
        "--only", default="", help="rows whose key contains this; RESULTS.md is left alone"
    )
    args = parser.parse_args()
    rows = [row for row in ROWS if args.only in row.key]
    if not rows:
        parser.error(f"no row like {args.only}; there are {', '.join(row.key for row in ROWS)}")
    return 0 if report(args.python or [sys.executable], rows, args.quick) else 1


if __name__ == "__main__":
    sys.exit(main())
