"""The report: every row in a fresh process, a table of ratios, and RESULTS.md."""

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from .fresh import run
from .loads import OURS
from .rows import ROWS, Row, Samples

RESULTS = Path(__file__).with_name("RESULTS.md")
NONE = "none"
HEAD = ("question", "against", "figure (min to max)", "must", "aim", "reached", "samples")


@dataclass(frozen=True)
class Section:
    """What one interpreter measured; a row without samples failed."""

    versions: dict[str, str]
    measured: dict[Row, Samples | None]

    def __str__(self) -> str:
        title = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        title = title or "nothing could be measured"
        lines = [line for row, samples in self.measured.items() for line in lines_of(row, samples)]
        notes = dict.fromkeys(row.note for row in self.measured if row.note)
        return "\n".join([f"## {title}", "", *table(lines), "", *(f"- {note}" for note in notes)])


def measure(python: str, rows: list[Row], quick: bool) -> Section:
    versions: dict[str, str] = {}
    measured: dict[Row, Samples | None] = {}
    for row in rows:
        print(f"measuring {row.key}", file=sys.stderr, flush=True)
        args = ("-m", "benchmarks.child", row.key, str(row.cores or 0), str(int(quick)))
        try:
            answer = json.loads(run(*args, python=python, seconds=120 if quick else 900))
        except (subprocess.SubprocessError, ValueError) as error:
            print(f"{row.key} failed: {error}", file=sys.stderr, flush=True)
            measured[row] = None
        else:
            versions = answer["versions"]
            measured[row] = answer["samples"]
    return Section(versions, measured)


def lines_of(row: Row, samples: Samples | None) -> list[tuple[str, ...]]:
    wanted = tuple("-" if x is None else f"{x:g} {row.figure_unit}" for x in (row.must, row.aim))
    if samples is None:
        return [(row.question, ", ".join(row.peers) or NONE, "failed", *wanted, "no", "-")]
    ours = samples[OURS]
    lines = []
    for peer in (*row.peers, *row.beside) or (NONE,):
        if peer == NONE:
            figures, medians = ours, f"{median(ours):.4g}"
        else:
            figures = [row.figure(a, b) for a, b in zip(ours, samples[peer], strict=True)]
            medians = f"{median(ours):.4g} / {median(samples[peer]):.4g}"
        figure = row.summary(figures)
        shown, low, high = (f"{x:.{row.digits}f}" for x in (figure, min(figures), max(figures)))
        reported = peer in row.beside or row.must is None
        lines.append(
            (
                row.question,
                peer,
                f"{shown} {row.figure_unit} ({low} to {high})",
                *(("-", "-", "reported") if reported else (*wanted, reached(row, figure))),
                f"{medians} {row.unit}",
            )
        )
    return lines


def reached(row: Row, figure: float) -> str:
    if row.reaches(figure, row.aim):
        return "aim"
    return "must" if row.reaches(figure, row.must) else "no"


def table(lines: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(HEAD, *lines, strict=True)]
    padded = [
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in (HEAD, tuple("-" * width for width in widths), *lines)
    ]
    return [f"| {line} |" for line in padded]


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    return f"{model}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at start"


def report(pythons: list[str], rows: list[Row], quick: bool) -> bool:
    """Measure, print, and write RESULTS.md when everything was measured in full."""
    head = (
        "# Results\n\n"
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}. Written by `python -m benchmarks report`.\n\n"
        "A figure is the median of pairs, ours and the peer measured in alternation in one run,"
        " unless a note\nsays otherwise; every row has a fresh process. `samples` are the medians,"
        " ours / the peer."
    )
    if quick:
        head += "\n\n**A smoke run: small numbers of tasks, few rounds, nothing to quote.**"
    cores = len(os.sched_getaffinity(0))
    measurable = [row for row in rows if (row.cores or 0) <= cores]
    for row in rows:
        if row not in measurable:
            print(f"{row.key} left out: it needs {row.cores} cores", file=sys.stderr)
    print(head, end="\n\n", flush=True)
    sections = []
    for python in pythons:
        sections.append(measure(python, measurable, quick))
        print(sections[-1], end="\n\n", flush=True)
    complete = all(None not in section.measured.values() for section in sections)
    if complete and not quick and len(rows) == len(ROWS):
        RESULTS.write_text("\n\n".join([head, *map(str, sections)]) + "\n")
    return complete
