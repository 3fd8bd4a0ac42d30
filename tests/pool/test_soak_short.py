"""The soak command, for a few seconds: `python -m tests.soak --minutes 20` runs it for long."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_soak_for_five_seconds() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--minutes", "0.08", "--seed", "1"],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing broke" in done.stdout
    assert "seed 1;" in done.stdout
