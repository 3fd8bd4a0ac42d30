"""The command ``recyclepool``: each subcommand is a function that returns the exit code."""

import argparse
import importlib.metadata
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import tzinfo

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
        return _cron(args) if args.command == "cron" else _demo(args)
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
    _add_cron(commands.add_parser)
    return parser


def _add_cron(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    cron = add_parser(
        "cron",
        help="show when a schedule fires next",
        description="Shows when a schedule fires next, by the clocks of a zone and in UTC. Exit "
        "code: 0 shown; 2 the schedule or the zone is wrong.",
    )
    cron.add_argument("schedule", nargs="+", help="'0 3 * * *' (in quotes), '@daily' or 'every 6h'")
    cron.add_argument("--tz", metavar="ZONE", help="such as Europe/Berlin; default: UTC")
    cron.add_argument("-n", type=_positive, default=5, metavar="N", help="default: 5")


def _cron(args: argparse.Namespace) -> int:
    from recyclepool.schedule import Schedule

    try:
        (schedule,) = Schedule.parse(" ".join(args.schedule))
        shown = Schedule.cron("@daily", tz=args.tz).zone
        if schedule.interval is None:
            schedule = Schedule.cron(schedule.expression, tz=args.tz)
    except ValueError as error:
        quotes = len(args.schedule) >= 5  # with names of files there may be more fields
        hint = " (put the expression in quotes: the shell reads * as names of files)"
        print(f"recyclepool cron: {error}{hint if quotes else ''}", file=sys.stderr)
        return 2
    print(f"{schedule}, by the clocks of {shown}")
    if schedule.interval is not None:
        print("(in a pool these are shifted, by a part of the interval)")
    now = moment = time.time()
    for _ in range(args.n):
        moment = schedule.next_after(moment)
        if moment == math.inf:
            break
        print(_firing(moment, shown, moment - now))
    return 0


def _firing(moment: float, zone: "tzinfo", away: float) -> str:
    """A line: by the clocks of `zone` with their offset, which shows a change; in UTC; how far."""
    from datetime import UTC, datetime

    from recyclepool.units import format_duration

    local, utc = (
        f"{datetime.fromtimestamp(moment, one):%a %Y-%m-%d %H:%M:%S %z}" for one in (zone, UTC)
    )
    return f"{local}   {utc.removesuffix(' +0000')} UTC   in {format_duration(away)}"


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
