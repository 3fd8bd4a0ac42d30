"""The examples, and the README's code, run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
README_BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60
    assert run(str(path))


@pytest.mark.parametrize("block", README_BLOCKS, ids=lambda block: block.split("\n")[0][:40])
def test_readme_block(block: str) -> None:
    run("-c", block)


def test_readme_commands_are_marked_and_are_one_line_each() -> None:
    text = (ROOT / "README.md").read_text()
    for marker in ("run", "test"):
        found = re.findall(rf"<!-- {marker} -->\n```sh\n(.*)\n```", text)
        assert len(found) == 1, marker
