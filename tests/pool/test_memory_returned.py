"""What a recycle for memory gives back to the system, and how large a process with leaks becomes.

Each in a process of its own: what other tests have left in the heap would be measured, too.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 2**20
PROGRAM = Path(__file__).parent / "leaking.py"
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RSS is read from /proc")


def run(*args, seconds=60):
    """What a run of the program tells in its last line."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, PROGRAM, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# ==== a recycle ==================================================================================


def has_to_return_nine_tenths(form, size):
    told = run("returned", form, size)
    assert told["count"] == 1, told
    assert told["proven"] > size * MIB / 8, told
    taken = told["before"] - told["base"]
    assert taken >= 0.9 * size * MIB, told
    assert told["before"] - told["after"] >= 0.9 * taken, told


@pytest.mark.parametrize("form", ["small objects", "1 KB bytes", "10 KB arrays"])
def test_memory_comes_back(form):
    has_to_return_nine_tenths(form, 50)


@pytest.mark.soak
@pytest.mark.parametrize("form", ["small objects", "1 KB bytes", "10 KB arrays", "2.5 MB arrays"])
def test_200_mb_come_back(form):
    has_to_return_nine_tenths(form, 200)


def test_large_arrays_come_back():
    has_to_return_nine_tenths("2.5 MB arrays", 200)


# ==== a leak of 1.5 MiB a call ===================================================================


def peak_of_leak(form, calls, seconds):
    """Times what the process took before, and what its workers may own together."""
    told = run("leak", form, calls, seconds=seconds)
    assert told["done"] == calls, told
    assert told["recycles"] >= calls * 1.5 / 64 / 4, told  # workers that own 256 MiB would do that
    return told["peak"] / (told["base"] + 4 * 64 * MIB)


def test_a_leak_is_bounded():
    """4.4 GiB in some seconds. Where other programs use the cores too, it may take some tries."""
    peaks = []
    while not peaks or peaks[-1] > 1.2:
        assert len(peaks) < 4, peaks
        peaks.append(peak_of_leak("blocks", 3_000, 60))
        assert peaks[-1] < 3, peaks


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("form", "slack"),
    # To count many small objects takes longer than to make them.
    [("blocks", 1.2), ("1 KB bytes", 1.5), ("dicts", 2), ("small objects", 2)],
)
def test_a_leak_is_bounded_in_each_form(form, slack):
    assert peak_of_leak(form, 3_000, 600) < slack


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_leak_is_bounded_for_long():
    assert peak_of_leak("blocks", 100_000, 3_000) < 1.2
