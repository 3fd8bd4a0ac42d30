"""``python -m benchmarks.accuracy``: owned bytes as they are read, against what is freed."""

import argparse
import platform
import subprocess
import sys
import tracemalloc

from . import owned_cases, owned_shared  # noqa: F401  each case enters itself
from .fresh import run
from .owned_stage import CASES, Case, measure

HEAD = ("case", "freed, MiB", "owned, MiB", "error")
MIB = 2**20


def all_cases() -> list[Case]:
    """Those that can run here."""
    return [case for case in CASES if case.possible]


def lines(wanted: str) -> list[tuple[str, ...]]:
    tracemalloc.start(1)
    found: list[tuple[str, ...]] = []
    for case in all_cases():
        if wanted not in case.name:
            continue
        figures = measure(case)
        mark = "" if abs(figures.error) <= (case.tolerance if case.frees else 0.01) else " !"
        name = case.name.replace("_", " ")
        freed, owned = f"{figures.freed / MIB:.2f}", f"{figures.owned / MIB:.2f}"
        found.append((name, freed, owned, f"{figures.error:+.1%}{mark}"))
    return found


def table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    padded = [map(str.ljust, row, widths) for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--here", action="store_true", help="in this process, not in a fresh one")
    args = parser.parse_args()
    if not args.here:
        try:
            print(run("-m", "benchmarks.accuracy", "--here", "--only", args.only), end="")
        except subprocess.CalledProcessError as error:
            return error.returncode
        return 0
    print(f"Python {platform.python_version()}\n")
    print(table([HEAD, *lines(args.only)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
