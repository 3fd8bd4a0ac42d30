"""The command ``recyclepool``: each subcommand is a function that returns the exit code."""

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.version:
        print(f"recyclepool {_version()}")
        return 0
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        return _demo(args)
    except KeyboardInterrupt:  # it came where nobody waited for it
        return 130
    except BrokenPipeError:  # the reader has gone: say nothing more, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="recyclepool", description="A thread pool whose workers are replaced one at a time."
    )
    parser.add_argument("--version", action="store_true", help="tell the version and end")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="analyse the standard library with a pool that recycles, and check the result",
        description="Analyses a part of the standard library with a pool that is recycled, closed "
        "and reopened while it works, has a task that hangs and workers that leak, and is "
        "restarted softly; then compares with a sequential run. Exit code: 0 the same, and all "
        "as planned; 1 not so; 2 no sources found; 130 interrupted.",
    )
    demo.add_argument("--workers", type=_positive, default=4, metavar="N", help="default: 4")
    demo.add_argument(
        "--tasks-per-worker",
        type=_positive,
        default=60,
        metavar="N",
        help="a worker is replaced after so many tasks; default: 60",
    )
    return parser


def _demo(args: argparse.Namespace) -> int:
    from recyclepool import demo

    return demo.run(workers=args.workers, tasks_per_worker=args.tasks_per_worker)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


def _version() -> str:
    try:
        return importlib.metadata.version("recyclepool")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
