"""The types are part of the surface: uses.py is checked as a user's strict program would be."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_uses(pytestconfig, tmp_path):
    pytest.importorskip("mypy")
    cache = getattr(pytestconfig, "cache", None)  # a second run takes a tenth of the time
    checked = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--config-file=",
            "--strict",
            "--warn-unused-ignores",
            f"--cache-dir={cache.mkdir('mypy') if cache else tmp_path}",
            str(HERE / "uses.py"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE.parent.parent,
    )
    assert checked.stdout.startswith("Success"), checked.stdout + checked.stderr
